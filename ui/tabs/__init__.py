"""The tabs of the page, one module each: `create(page)` builds it inside its own `gr.Tab`."""
