"""A heartbeat for what is shown live: it beats only while it can be seen."""

from __future__ import annotations

import gradio as gr

SCRIPT = """
const every = %d;
let last = -every;
const beat = setInterval(() => {
  if (!element.isConnected) return clearInterval(beat);
  const now = performance.now();
  if (document.hidden || !element.checkVisibility() || now - last < every) return;
  last = now;
  trigger("tick");
}, 200);
"""
"""A Timer of Gradio's goes on in tabs and windows that nobody looks at."""


def pulse(every_s: float) -> gr.HTML:
    """Its `tick` comes when its tab is opened and then every so many seconds, but in no hidden tab or window."""
    return gr.HTML("<i></i>", js_on_load=SCRIPT % (every_s * 1000), elem_classes="ls-pulse")
