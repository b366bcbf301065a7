// What all pages share: asking the service, and building elements whose texts are never read as HTML.

export async function ask(address) {
  const answer = await fetch(address, { headers: { Accept: "application/json" } });
  if (answer.status === 401) {
    location.assign("/login");
    return new Promise(() => {});
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.detail || `The service answered ${answer.status}.`);
  return told;
}

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;

export function show(value, digits = 3) {
  return typeof value === "number" ? value.toFixed(digits) : "–";
}

export const slideAddress = (key) => `/slide#s=${encodeURIComponent(key)}`;
export const runAddress = (keys) => `/run#r=${keys.map(encodeURIComponent).join(",")}`;
export const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
