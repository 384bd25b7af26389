// Keys, and what Gradio's chat does not do by itself.
(() => {
  const EDITED = "#ls-talk textarea";
  const read = text => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
  const escaped = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  function put(box, text) {
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // Gradio calls its examples a list, which they are not: they are buttons, and are read as such without that.
  new MutationObserver(() => document.querySelector("#ls-talk .examples[role=list]")?.removeAttribute("role"))
    .observe(document.documentElement, { childList: true, subtree: true });

  const button = label => document.querySelector(`#ls-talk button[aria-label="${label}"]`);

  // The chat holds questions as HTML. While one is edited it is shown as text, and is HTML again before it is sent.
  addEventListener("click", event => {
    const label = event.target.closest?.("#ls-talk button")?.ariaLabel, box = document.querySelector(EDITED);
    if (label === "Submit" && box) put(box, escaped(box.value));
    if (label === "Edit") setTimeout(() => {
      const opened = document.querySelector(EDITED);
      if (!opened) return;
      put(opened, read(opened.value));
      opened.ariaLabel = "Your question";
      opened.focus();
    });
  }, true);

  addEventListener("keydown", event => {
    if (event.isComposing) return; // that key belongs to the input method
    const editing = event.target.matches?.(EDITED), stop = document.querySelector("#ls-question .stop-button");
    if (event.key === "Escape" && editing) button("Cancel")?.click();
    else if (event.key === "Escape" && stop?.checkVisibility()) stop.click(); // hidden while another tab is open
    if (event.key === "Enter" && !event.shiftKey && editing) {
      event.preventDefault();
      event.stopPropagation();
      button("Submit")?.click();
    }
  }, true);
})();
