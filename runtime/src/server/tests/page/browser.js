// As much of a browser as the page uses, and no more: an element that the page does not have, and a field that a document does not
// have, are errors. `ids` are the page's elements.
"use strict";
const elements = new Map(ids.map((id) => [id, element()]));
const asked = [];
const answers = [];
const later = [];
let drawn = 0;

function element() {
  const listeners = {};
  return {
    hidden: false, textContent: "", className: "", value: "", dataset: {}, width: 0, height: 0, clientWidth: 600, clientHeight: 200,
    children: [], listeners,
    append(child) { this.children.push(child); },
    replaceChildren(...children) { this.children = children; },
    addEventListener(kind, listener) { listeners[kind] = listener; },
    getBoundingClientRect() { return {left: 0, top: 0, width: 600, height: 200}; },
    getContext() { return brush; },
  };
}

function finite(...numbers) {
  drawn += 1;
  if (!numbers.every((number) => Number.isFinite(number))) throw new Error("drawn at " + numbers);
}

const brush = {
  setTransform: finite, clearRect: finite, fillRect: finite, moveTo: finite, lineTo: finite, beginPath() {}, stroke() {}, setLineDash() {},
  fillText(text, x, y) { finite(x, y); if (/NaN|undefined|null|Infinity/.test(String(text))) throw new Error("text " + text); },
};

// A document whose missing fields are errors, as are those of what is in it.
function strict(value, at) {
  if (typeof value !== "object" || value === null) return value;
  return new Proxy(value, {
    get(of, name) {
      // Promises look whether it is one.
      if (name === "then") return undefined;
      if (typeof name === "symbol" || Array.isArray(of) || name in Object.prototype) {
        const found = of[name];
        return typeof found === "object" ? strict(found, at + "[]") : found;
      }
      if (!(name in of)) throw new Error("no field " + at + "." + name);
      return strict(of[name], at + "." + name);
    },
  });
}

globalThis.document = {
  title: "", documentElement: {},
  getElementById(id) { if (!elements.has(id)) throw new Error("no element " + id); return elements.get(id); },
  createElement() { return element(); },
};
globalThis.window = {devicePixelRatio: 2};
globalThis.getComputedStyle = () => ({getPropertyValue: (name) => { if (!properties.includes(name)) throw new Error(name); return " #123 "; }});
globalThis.setTimeout = (callback) => later.push(callback);
globalThis.fetch = async (path, options) => {
  asked.push([path, options.headers["x-swiftbalancer-admin-token"] ?? null]);
  const [status, text] = answers.shift();
  return {status, ok: status === 200, json: async () => strict(JSON.parse(text), "document")};
};

// What the tests look at.
globalThis.answer = (status, text) => answers.push([status, text]);
globalThis.go_on = () => later.splice(0).forEach((callback) => callback());
globalThis.enter = (token) => {
  elements.get("token").value = token;
  elements.get("ask").listeners.submit({preventDefault() {}});
};
globalThis.point = (x, y) => elements.get("heat").listeners.mousemove({clientX: x, clientY: y});
globalThis.shown = (id) => {
  const {textContent, children, hidden, className} = elements.get(id);
  const of = (child) => child.textContent + child.children.map(of).join(" ");
  return JSON.stringify({text: textContent, rows: children.map((child) => child.children.map(of).join(" ")), hidden, class: className});
};
globalThis.all_asked = () => JSON.stringify(asked);
globalThis.all_drawn = () => drawn;
