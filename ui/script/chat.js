// What this browser keeps: its conversations (localStorage), and for each of its tabs which one is open and what was
// typed and not yet sent (sessionStorage). Where storage is refused, the page works without.
window.ls = (() => {
  const PREFIX = "ls-chat-", OPEN = "ls-open", DRAFT = "ls-draft", MOST = 30, EVERY_MS = 1000;
  const QUESTION = "#ls-question textarea";
  let waiting = null, timer = null;

  const tried = (action, otherwise) => { try { return action(); } catch { return otherwise; } };
  const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, "0")).join("");
  const stored = id => tried(() => JSON.parse(localStorage.getItem(PREFIX + id)), null);
  const opened = id => tried(() => sessionStorage.setItem(OPEN, id));

  const all = () => tried(() => Object.keys(localStorage), [])
    .filter(key => key.startsWith(PREFIX))
    .map(key => ({ ...stored(key.slice(PREFIX.length)), id: key.slice(PREFIX.length) }))
    .sort((one, other) => (other.at ?? 0) - (one.at ?? 0));

  const drop = id => tried(() => localStorage.removeItem(PREFIX + id));

  function write() {
    clearTimeout(timer);
    timer = null;
    if (!waiting) return;
    const { id, turns } = waiting, text = JSON.stringify({ at: Date.now(), turns });
    waiting = null;
    const others = all().filter(other => other.id !== id);
    others.splice(MOST - 1).forEach(other => drop(other.id));
    // A full storage gives up its oldest conversations first.
    while (!tried(() => { localStorage.setItem(PREFIX + id, text); return true; }, false) && others.length) drop(others.pop().id);
  }

  addEventListener("pagehide", () => {
    write();
    tried(() => sessionStorage.setItem(DRAFT, document.querySelector(QUESTION)?.value ?? ""));
  });

  return {
    load() {
      const id = tried(() => sessionStorage.getItem(OPEN), null) ?? fresh();
      const draft = tried(() => sessionStorage.getItem(DRAFT), null) || null;
      opened(id);
      return { id, turns: stored(id)?.turns ?? [], draft };
    },
    // Who asks before the page has heard of its conversation means the same one.
    now(kept) {
      return kept ?? this.load();
    },
    fresh() {
      const id = fresh();
      write();
      opened(id);
      return { id, turns: [], draft: "" };
    },
    open(id) {
      write();
      opened(id);
      return { id, turns: stored(id)?.turns ?? [] };
    },
    keep(kept) {
      if (!kept?.turns?.length) return;
      const growing = !kept.turns.at(-1).answer.done;
      // A screen reader shall not read an answer word by word: it is busy until the answer is there.
      document.querySelector("#ls-talk [role=log]")?.setAttribute("aria-busy", growing);
      waiting = kept;
      opened(kept.id);
      if (!growing) write();
      else timer ??= setTimeout(write, EVERY_MS);
    },
    list() {
      write();
      return all().map(({ id, at, turns }) => [`${[...(turns?.[0]?.question ?? "")].slice(0, 80).join("")} · ${new Date(at).toLocaleString()}`, id]);
    },
    forget() {
      const open = tried(() => sessionStorage.getItem(OPEN), null);
      all().filter(({ id }) => id !== open).forEach(({ id }) => drop(id));
      return this.list();
    },
  };
})();
