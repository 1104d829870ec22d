"use strict";
// The questions behind the numbers of a run. The address's hash holds the filter, so that links and "back" work:
// #organ=Liver&line=sft&verdict=right&other=dpo&other_verdict=wrong&protocol=strict&q=…&id=…&page=2
// `number` is one of the protocol's own, by which answers are then right or wrong; `sort` puts the highest first.
// The script stands before the pictures and the long texts: it lists the questions while these are still read.
// Texts of the data become text nodes only, never markup.

const PAGE = 50;
const VERDICTS = {
  right: "right", partly: "partly right", wrong: "wrong", scored: "scored", excluded: "left out by the protocol",
  raised: "the original would raise", unscored: "no verdict", unreadable: "unreadable", truncated: "cut off",
  repeated: "repeats itself", empty: "empty",
};
const MARKS = {right: "✓", partly: "◐", wrong: "✗", unreadable: "?"};
const FACETS = {
  set: "Set", language: "Language", answer_type: "Closed or open", yes_no: "Yes/no answer", question_type: "Question type",
  organ: "Organ", modality: "Modality", leak: "Picture in training",
};
const SORTS = {words: "words of the answer", tokens: "tokens written", seconds: "seconds"};
const place = document.getElementById("questions");

function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children.filter(child => child !== null && child !== ""));
  return made;
}

const embedded = id => document.getElementById(id).textContent;
const parsed = new Promise(done => document.addEventListener("DOMContentLoaded", done));

async function unpacked(id) {
  const characters = atob(embedded(id));
  const bytes = new Uint8Array(characters.length);
  for (let place = 0; place < bytes.length; place++) bytes[place] = characters.charCodeAt(place);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function explorer(data) {
  const {lines, strings, fields, facets, answers, protocols} = data;
  const keys = Object.keys(lines);
  const count = data.cluster.length;
  const flags = {};
  for (const line of keys) {
    flags[line] = {};
    for (const flag of ["truncated", "repeated", "forced", "empty"]) flags[line][flag] = new Set(answers[line][flag]);
  }
  const field = (name, row) => strings[fields[name][row]];
  const said = (line, row) => answers[line].answer[row] < 0 ? null : strings[answers[line].answer[row]];
  const group = (name, row) => facets[name].names[facets[name].of[row]];

  // ---- what is read later ----
  let pictures = null;
  function picture(line, row, properties) {
    const number = answers[line].picture[row];
    if (number < 0) return null;
    const made = el("img", properties);
    parsed.then(() => {
      pictures ??= embedded("pictures").split("\n");
      made.src = pictures[number];
    });
    return made;
  }
  let texts = null, reading = null;
  function withTexts(then) {
    if (texts) then();
    else (reading ??= parsed.then(() => unpacked("texts")).then(found => { texts = found; })).then(then).catch(failed);
  }

  // ---- the filter ----
  let state = new URLSearchParams();
  const protocol = () => protocols.includes(state.get("protocol")) ? state.get("protocol") : protocols[0];

  function verdict(score) {
    if (typeof score !== "number") return score ?? "excluded";
    return score >= 1 ? "right" : score <= 0 ? "wrong" : "partly";
  }
  const number = () => data.numbers[protocol()].includes(state.get("number")) ? state.get("number") : null;
  const sort = () => state.get("line") in answers && state.get("sort") in SORTS ? state.get("sort") : null;
  const scores = line => number() ? texts.answers[line].numbers[protocol()][number()] : answers[line].scores[protocol()];
  function has(line, wanted) {
    if (wanted === "unreadable") return row => answers[line].answer[row] < 0;
    if (wanted in flags[line]) return row => flags[line][wanted].has(row);
    const found = scores(line);
    return wanted === "scored" ? row => typeof found[row] === "number" : row => verdict(found[row]) === wanted;
  }
  let lowered = null;
  function searcher(text) {
    const wanted = text.toLowerCase();
    lowered ??= [strings, texts.strings].map(all => all.map(string => string.toLowerCase()));
    const [short, long] = lowered.map(all => all.map(string => string.includes(wanted)));
    return row => ["id", "question", "gold"].some(name => short[fields[name][row]])
      || keys.some(line => long[texts.answers[line].text[row]] || short[answers[line].answer[row]]);
  }
  function matching() {
    const tests = [];
    for (const name of Object.keys(facets)) {
      if (state.has(name)) {
        const wanted = facets[name].names.indexOf(state.get(name));
        tests.push(row => facets[name].of[row] === wanted);
      }
    }
    for (const [line, wanted] of [["line", "verdict"], ["other", "other_verdict"]]) {
      const chosen = state.get(line);
      if (chosen in answers && state.get(wanted)) tests.push(has(chosen, state.get(wanted)));
    }
    if (state.has("cluster")) tests.push(row => data.cluster[row] === Number(state.get("cluster")));
    if (state.has("id")) tests.push(row => field("id", row) === state.get("id"));
    if (state.get("q")) tests.push(searcher(state.get("q")));
    const rows = [];
    for (let row = 0; row < count; row++) if (tests.every(test => test(row))) rows.push(row);
    if (sort()) {
      const column = texts.answers[state.get("line")][sort()];
      rows.sort((a, b) => (column[b] ?? -1) - (column[a] ?? -1));
    }
    return rows;
  }
  function address(changes) {
    const next = new URLSearchParams(state);
    if (!("page" in changes)) next.delete("page");
    for (const [name, value] of Object.entries(changes)) value ? next.set(name, value) : next.delete(name);
    return "#" + (next.toString() || "all=1");
  }
  let scroll = true;
  function go(changes) {
    scroll = false;
    location.hash = address(changes);
  }

  // ---- the controls ----
  const controls = {};
  function select(name, title, options) {
    const made = el("select", {name, onchange: () => go({[name]: made.value})});
    for (const [value, label] of options) made.append(el("option", {value}, label));
    controls[name] = made;
    return el("label", {}, el("span", {}, title), made);
  }
  const search = el("input", {type: "search", placeholder: "Search all texts ( / )", "aria-label": "Search all texts"});
  let waiting = 0;
  search.oninput = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => go({q: search.value}), 250);
  };
  const ofLines = [["", "any"], ...Object.entries(lines)];
  const ofVerdicts = [["", "any"], ...Object.entries(VERDICTS)];
  const form = el("form", {className: "filter", onsubmit: event => event.preventDefault()},
    search,
    el("details", {open: innerWidth > 767}, el("summary", {}, "By group"), el("div", {className: "row"}, ...Object.keys(facets).filter(name => facets[name].names.length > 1).map(name =>
      select(name, FACETS[name] ?? name, [["", "all"], ...facets[name].names.map(value => [value, value])])))),
    el("div", {className: "row"},
      el("div", {className: "pair"}, select("line", "Stage", ofLines), select("verdict", "is", ofVerdicts)),
      el("div", {className: "pair"}, select("other", "and stage", ofLines), select("other_verdict", "is", ofVerdicts)),
      select("protocol", "by protocol", protocols.map(name => [name, name])),
      select("number", "by number", [["", "its score"], ...[...new Set(Object.values(data.numbers).flat())].map(name => [name, name.replaceAll("_", " ")])]),
      select("sort", "the stage's highest first by", [["", "–"], ...Object.entries(SORTS)])));
  const presets = el("p", {className: "small presets"});
  const named = {};
  if (answers.sft && answers.dpo) {
    named["SFT right, DPO wrong"] = {line: "sft", verdict: "right", other: "dpo", other_verdict: "wrong"};
    named["SFT wrong, DPO right"] = {line: "sft", verdict: "wrong", other: "dpo", other_verdict: "right"};
  }
  if (answers.blank_image) named["right without the picture"] = {line: "blank_image", verdict: "right"};
  if (answers.shuffled_image) named["right with another picture"] = {line: "shuffled_image", verdict: "right"};
  if (answers.floor) named["right from the question alone"] = {line: "floor", verdict: "right"};
  named["everything"] = {all: "1"};
  for (const [label, filter] of Object.entries(named)) {
    presets.append(el("a", {href: "#" + new URLSearchParams(filter)}, label), " ");
  }
  const tally = el("div", {className: "scroll"});
  const list = el("div", {className: "list"});
  const pager = el("nav", {className: "pager", "aria-label": "Pages of questions"});
  const hint = el("p", {className: "muted small keys"},
    "Keys: j k or arrows move, Enter opens, n p turn pages, / searches, Esc closes, then clears.");
  place.replaceChildren(form, presets, tally, list, pager, hint);

  // ---- what is shown ----
  function counted(rows) {
    const head = el("tr", {}, el("th", {}, `${rows.length.toLocaleString("en")} of ${count.toLocaleString("en")} questions`));
    const said = number() ? `${protocol()}: ${number().replaceAll("_", " ")}` : `${protocol()}: right of scored`;
    const body = el("tr", {}, el("th", {scope: "row"}, said));
    for (const line of keys) {
      const found = scores(line);
      let scored = 0, sum = 0;
      for (const row of rows) if (typeof found[row] === "number") { scored++; sum += found[row]; }
      head.append(el("th", {}, lines[line]));
      const shown = scored ? `${(100 * sum / scored).toFixed(1)} %` : "–";
      body.append(el("td", {}, el("a", {href: address({line, verdict: "right"}), title: `${+sum.toFixed(2)} of ${scored}`}, shown)));
    }
    tally.replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, body, sort() ? cost(rows) : "")));
  }
  function cost(rows) {
    const body = el("tr", {}, el("th", {scope: "row"}, `${SORTS[sort()]}: mean, median, most`));
    for (const line of keys) {
      const found = rows.map(row => texts.answers[line][sort()][row]).filter(value => value !== null).sort((a, b) => a - b);
      const middle = (found[(found.length - 1) >> 1] + found[found.length >> 1]) / 2;
      const mean = found.reduce((sum, value) => sum + value, 0) / found.length;
      body.append(el("td", {}, found.length ? [mean, middle, found.at(-1)].map(value => +value.toFixed(2)).join(", ") : "–"));
    }
    return body;
  }

  const thought = /^\s*<think>([\s\S]*?)(<\/think>|$)/;
  function written(line, row, language) {
    const text = texts.strings[texts.answers[line].text[row]];
    const opened = text.match(thought) ?? text.match(/^([\s\S]*?)(<\/think>)/);
    const parts = [];
    if (opened) {
      const closed = opened[2] ? "" : ", never closed";
      parts.push(el("details", {}, el("summary", {}, `Thought, ${opened[1].length.toLocaleString("en")} characters${closed}`),
        el("div", {className: "text raw", lang: language}, opened[1].trim())));
    }
    const rest = opened ? text.slice(opened[0].length) : text;
    parts.push(el("div", {className: "text raw", lang: language}, rest.trim() || "(nothing)"));
    return parts;
  }
  function badge(line, row) {
    const scored = verdict(answers[line].scores[protocol()][row]);
    const found = answers[line].answer[row] < 0 && scored !== "right" ? "unreadable" : scored;
    const kind = {right: "good", partly: "warn", wrong: "bad", unreadable: "warn"}[found] ?? "muted";
    const more = flags[line].truncated.has(row) ? ", cut off" : "";
    return el("span", {className: kind}, `${MARKS[found] ?? "·"} ${VERDICTS[found]}${more}`);
  }
  function scoreText(score) {
    return typeof score === "string" ? VERDICTS[score] : score === 1 ? "✓ 1" : score === 0 ? "✗ 0" : `◐ ${score}`;
  }
  function byProtocol(line, row) {
    const body = el("tbody");
    for (const name of protocols) {
      const why = texts.strings[texts.answers[line].why[name][row]];
      body.append(el("tr", {}, el("th", {scope: "row"}, name),
        el("td", {className: "words"}, scoreText(answers[line].scores[name][row])), el("td", {className: "words why"}, why)));
    }
    return el("details", {open: line === state.get("line")}, el("summary", {}, "What each protocol says"),
      el("div", {className: "scroll"}, el("table", {className: "verdicts"}, body)));
  }
  function twin(line, row) {
    if (line === "blank_image") return el("div", {className: "blank", role: "img", ariaLabel: "a blank picture"});
    if (line !== "shuffled_image") return null;
    return picture(line, row, {alt: "the other picture"});
  }
  function answered(line, row) {
    const language = field("language", row);
    const answer = said(line, row);
    const notes = [];
    const {tokens, seconds} = texts.answers[line];
    if (tokens[row]) notes.push(`${tokens[row]} tokens in ${seconds[row]} s`);
    if (flags[line].repeated.has(row)) notes.push("repeats itself");
    if (flags[line].forced.has(row)) notes.push("thought cut at its budget");
    const other = twin(line, row);
    return el("section", {className: other ? "said twin" : "said"}, other,
      el("div", {},
        el("p", {}, el("b", {}, lines[line]), " ", badge(line, row), " ", el("span", {className: "muted small"}, notes.join(", "))),
        el("p", {className: "answer", lang: language}, answer ?? "no answer could be read"),
        ...(line === "floor" ? [] : written(line, row, language)), byProtocol(line, row)));
  }
  function opened(card, row) {
    if (card.querySelector(".evidence")) return;
    const facts = el("dl", {className: "small"});
    for (const name of Object.keys(facets)) {
      facts.append(el("dt", {}, FACETS[name] ?? name), el("dd", {},
        el("a", {href: "#" + new URLSearchParams({[name]: group(name, row)})}, group(name, row))));
    }
    facts.append(el("dt", {}, "Of the same picture"), el("dd", {},
      el("a", {href: "#" + new URLSearchParams({cluster: data.cluster[row]})}, field("image_id", row) || "these questions")));
    if (field("linked_id", row)) facts.append(el("dt", {}, "Rephrasing of"), el("dd", {}, field("linked_id", row)));
    facts.append(el("dt", {}, "Address"), el("dd", {},
      el("a", {href: "#" + new URLSearchParams({id: field("id", row)})}, field("id", row))));
    card.append(el("div", {className: "evidence"},
      el("div", {}, picture(keys[0], row, {alt: "the question's picture"}) ?? el("p", {className: "muted small"}, "no thumbnail"), facts),
      el("div", {}, ...keys.map(line => answered(line, row)))));
  }
  function toggle(card, open) {
    const turn = () => {
      if (open) opened(card, Number(card.dataset.row));
      card.classList.toggle("open", open);
      card.querySelector("button").ariaExpanded = String(open);
    };
    open ? withTexts(turn) : turn();
  }
  function card(row) {
    const language = field("language", row);
    const line = state.get("line") in answers ? [state.get("line")] : [];
    const other = state.get("other") in answers ? [state.get("other")] : [];
    const brief = line.length ? [...new Set([...line, ...other])] : keys.filter(key => ["untrained", "sft", "dpo"].includes(key));
    const made = el("article", {className: "question", tabIndex: -1});
    made.dataset.row = row;
    const head = el("button", {type: "button", ariaExpanded: "false", onclick: () => toggle(made, !made.classList.contains("open"))},
      picture(keys[0], row, {alt: "", loading: "lazy"}) ?? el("span", {className: "none"}),
      el("span", {className: "asked"},
        el("span", {lang: language, className: "ask"}, field("question", row)),
        el("span", {lang: language}, el("span", {className: "muted"}, "Gold "), field("gold", row)),
        el("span", {className: "muted small"}, [field("id", row), field("source", row), group("answer_type", row)].join(" · "))),
      el("span", {className: "brief small"}, ...brief.map(key => el("span", {},
        el("span", {className: "muted"}, lines[key]), badge(key, row), el("span", {lang: language, className: "short"}, said(key, row) ?? "")))));
    made.append(head);
    return made;
  }

  let rows = [];
  const pages = () => Math.max(1, Math.ceil(rows.length / PAGE));
  const page = () => Math.min(pages(), Math.max(1, Number(state.get("page")) || 1));
  function show() {
    for (const [name, control] of Object.entries(controls)) {
      control.value = name === "protocol" ? protocol() : state.get(name) ?? "";
      control.classList.toggle("set", state.has(name));
    }
    if (document.activeElement !== search) search.value = state.get("q") ?? "";
    rows = matching();
    counted(rows);
    const first = (page() - 1) * PAGE;
    list.replaceChildren(...rows.slice(first, first + PAGE).map(card));
    if (!rows.length) list.append(el("p", {className: "muted"}, "No question is so."));
    if (state.has("id") && list.firstElementChild?.dataset.row) toggle(list.firstElementChild, true);
    const link = (label, number) => number >= 1 && number <= pages() ? el("a", {href: address({page: number})}, label) : el("span", {className: "muted"}, label);
    pager.replaceChildren(link("‹ Before", page() - 1), el("span", {}, ` Page ${page()} of ${pages()} `), link("Next ›", page() + 1));
    pager.hidden = pages() === 1;
    place.dataset.shown = rows.length;
  }
  function turned() {
    state = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    delete place.dataset.shown;
    if (["id", "q", "number", "sort"].some(name => state.get(name))) withTexts(settled); else settled();
  }
  function settled() {
    show();
    if (scroll && state.size) document.getElementById("evidence").scrollIntoView();
    scroll = true;
  }
  addEventListener("hashchange", turned);

  // ---- the keyboard ----
  function move(step) {
    const cards = [...list.querySelectorAll(".question")];
    const at = cards.indexOf(document.activeElement?.closest(".question"));
    const next = at < 0 ? cards[step > 0 ? 0 : cards.length - 1] : cards[at + step];
    if (next) {
      next.querySelector("button").focus({preventScroll: true});
      next.scrollIntoView({block: "nearest"});
    } else turn(step);
  }
  function turn(step) {
    const next = page() + step;
    if (next < 1 || next > pages()) return;
    addEventListener("hashchange", () => move(step), {once: true});
    go({page: String(next)});
  }
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const focused = document.activeElement;
    const card = focused?.closest(".question");
    if (event.key === "Escape") {
      const open = card?.classList.contains("open") ? card : list.querySelector(".question.open");
      if (focused === search) search.blur();
      else if (open) toggle(open, false);
      else if (state.size) go(Object.fromEntries([...state.keys()].map(name => [name, ""])));
      return;
    }
    if (["INPUT", "SELECT", "TEXTAREA"].includes(focused?.tagName)) return;
    const actions = {
      j: () => move(1), k: () => move(-1), n: () => turn(1), p: () => turn(-1),
      "/": () => { search.focus(); document.getElementById("evidence").scrollIntoView(); },
    };
    if (card) {
      Object.assign(actions, {
        ArrowDown: () => move(1), ArrowUp: () => move(-1),
        ArrowRight: () => toggle(card, true), ArrowLeft: () => toggle(card, false),
      });
    }
    if (actions[event.key]) {
      event.preventDefault();
      actions[event.key]();
    }
  });
  turned();
}

function failed(error) {
  place.replaceChildren(el("p", {className: "bad"}, `The questions cannot be shown (${error}); predictions.jsonl has them.`));
}
unpacked("questions-data").then(explorer).catch(failed);
