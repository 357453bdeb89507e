// Follows the page: asks for the same address again, and changes only what differs. Without it the page is as it was sent.
"use strict";
(() => {
  const EVERY = 2000, PATIENCE = 10000;
  const root = document.documentElement;
  const content = document.getElementById("content");
  const trouble = document.getElementById("trouble");
  const news = document.getElementById("news");
  const live = document.getElementById("live-text");
  let version = root.dataset.version;
  let ahead = Date.parse(root.dataset.now) - Date.now(); // how far the exporter's clock is ahead of ours
  let heard = Date.now();
  let timer = 0, asking = false;

  const now = () => Date.now() + ahead;
  const clock = (at) => new Date(at).toISOString().slice(11, 19) + " UTC";
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };

  function span(milliseconds) {
    let left = Math.max(0, Math.round(milliseconds / 1000));
    const parts = [];
    let taken = 0;
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
      const count = Math.floor(left / size);
      left -= count * size;
      if (count || taken) {
        taken += 1;
        if (count) parts.push(`${count} ${unit}`);
      }
      if (taken === 2) break;
    }
    return parts.join(" ") || "0 s";
  }

  function tick() {
    const at = now();
    for (const time of content.querySelectorAll("time[data-age]")) {
      const age = at - Date.parse(time.dateTime);
      say(time, `${span(age)} ago`);
      const holder = time.parentElement;
      if (holder.dataset.staleAfter) holder.classList.toggle("old", age > 1000 * holder.dataset.staleAfter);
    }
    for (const time of content.querySelectorAll("time[data-until]")) {
      const left = Date.parse(time.dateTime) - at;
      say(time, left > 500 ? `in ${span(left)}` : left > -5000 ? "now" : `overdue for ${span(-left)}`);
    }
  }

  // Makes an element like another one, and leaves alone what a person has done to it: focus, open details, what is typed.
  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    const touched = old.matches("input, select");
    const kept = touched ? ["value", "selected"] : old.matches("details") ? ["open"] : [];
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !kept.includes(name)) old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value && !kept.includes(name)) old.setAttribute(name, value);
    }
    if (old === document.activeElement && touched) return;
    if (old.matches("select")) {
      const chosen = old.value;
      children(old, fresh);
      if ([...old.options].some((option) => option.value === chosen)) old.value = chosen;
    } else if (!old.matches("time[data-age], time[data-until]") || old.title !== fresh.title || old.textContent === "") {
      children(old, fresh);
    }
  }

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.id || node.dataset.key || "" : "");

  function children(old, fresh) {
    const keyed = new Map();
    for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
    let place = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const key = keyOf(wanted);
      let found = key ? keyed.get(key) : null;
      if (!key) {
        found = place && !keyOf(place) && place.nodeName === wanted.nodeName ? place : null;
      }
      if (found && found.nodeName === wanted.nodeName) {
        if (found === place) place = place.nextSibling;
        else old.insertBefore(found, place);
        morph(found, wanted);
      } else {
        old.insertBefore(document.importNode(wanted, true), place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  const sentences = (place) => [...place.querySelectorAll("[data-news]")].map((element) => element.dataset.news).join(" ");

  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("content");
    if (!fresh || !page.documentElement.dataset.version) throw new Error("that is no page of the exporter");
    const said = sentences(content);
    children(content, fresh);
    if (document.title !== page.title) document.title = page.title;
    if (sentences(content) !== said) say(news, sentences(content));
    tick();
  }

  function reached(response) {
    const date = Date.parse(response.headers.get("Date"));
    if (!Number.isNaN(date) && Math.abs(date + 500 - now()) > 1500) ahead = date + 500 - Date.now();
    heard = Date.now();
    root.classList.add("following");
    root.classList.remove("lost");
    say(trouble, "");
    say(live, `Live, checked ${clock(now())}`);
  }

  function lost(why) {
    root.classList.remove("following");
    root.classList.add("lost");
    say(trouble, `${why} What you see is from ${clock(heard + ahead)}, and may be wrong by now.`);
    say(live, `Not live since ${clock(heard + ahead)}`);
  }

  async function ask() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    try {
      const response = await fetch(location.pathname + location.search, {
        headers: { "If-None-Match": `"${version}"` },
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (response.status === 304) {
        reached(response);
      } else if (response.ok) {
        const text = await response.text();
        show(text);
        version = (response.headers.get("ETag") || "").replace(/^W\/|"/g, "");
        reached(response);
      } else if (response.status === 404) {
        lost("The exporter knows no such number any more.");
      } else {
        lost(`The exporter answered ${response.status}.`);
      }
    } catch {
      lost("The exporter can't be reached.");
    }
    asking = false;
    if (!document.hidden) timer = setTimeout(ask, EVERY);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    if (!document.hidden) ask();
  });
  document.addEventListener("submit", (event) => {
    for (const field of event.target.querySelectorAll("input, select")) if (!field.value) field.disabled = true;
  });
  window.addEventListener("pageshow", (event) => {
    for (const field of document.querySelectorAll(":disabled")) field.disabled = false;
    if (event.persisted) ask();
  });
  document.addEventListener("keydown", (event) => {
    const search = document.getElementById("q");
    if (event.key === "/" && search && !event.target.matches("input, select, textarea") && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      search.focus();
    }
  });
  if (version) {
    setInterval(tick, 1000);
    tick();
    timer = setTimeout(ask, EVERY);
  }
})();
