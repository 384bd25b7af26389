"""How the page looks and what it may ask for: theme, style sheet, security policy, start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import gradio as gr

STYLE, SCRIPT = (Path(__file__).with_name(folder) for folder in ("style", "script"))
SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio starts inline and compiles templates
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'self'",
        "frame-ancestors 'self'",
    )
)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]


class OwnHostOnly:
    """ASGI middleware: the browser itself refuses whatever the page might ask of another host."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message["headers"] = [*message.get("headers", []), policy]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def start(app: gr.Blocks, host: str, port: int) -> None:
    """Serve the page in a thread and return. Raises OSError when the port is taken."""
    from starlette.middleware import Middleware

    app.queue(default_concurrency_limit=None).launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        head=script(),
        css_paths=[STYLE / "base.css", *sorted(STYLE.glob("[!b]*.css"))],  # what tabs share, then one file a tab
        app_kwargs={"middleware": [Middleware(OwnHostOnly)]},
        footer_links=[],
        run_history=False,  # Gradio would keep what was typed, keys too, in the browser
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        pwa=False,
    )


def script() -> str:
    """What the page's own JavaScript adds to its head."""
    return "".join(f"<script>{file.read_text(encoding='utf-8')}</script>" for file in sorted(SCRIPT.glob("*.js")))


def theme() -> gr.themes.Base:
    """Gradio's default with the system's own fonts, so that nothing is downloaded, and legible greys."""
    default = gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=SANS,
        font_mono=MONO,
    )
    return default.set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_600",  # white is legible on it, and under the pointer, too
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )
