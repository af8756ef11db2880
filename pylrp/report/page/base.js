// Helpers that all parts of the page use: elements, numbers, packed arrays, colours.

const SVG = 'http://www.w3.org/2000/svg';

/** Makes an element; attributes that are functions become listeners. Text is only ever added as text. */
function make(namespace, tag, attributes, children) {
  const element = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}
const h = (tag, attributes, ...children) => make(null, tag, attributes, children);
const s = (tag, attributes, ...children) => make(SVG, tag, attributes, children);

/** A number for a sentence, as Python's present.numbers.figure: three digits, and a true minus. */
function number(value) {
  const size = Math.abs(value);
  let text;
  if (size === 0) return '0';
  if (size >= 1e6) text = size.toExponential(1).replace('+', '');
  else if (size >= 1000) text = Math.round(size).toLocaleString('en-US');
  else if (size < 1e-3) text = size.toExponential(1);
  else text = String(Number(size.toPrecision(size < 0.01 ? 2 : 3)));
  return (value < 0 ? '−' : '') + text;
}
const signed = (value) => (value > 0 ? '+' : '') + number(value);

function percent(share) {
  if (share > 0 && share < 0.0005) return '<0.1 %';
  if (share >= 0.9995 && share < 1) return '>99.9 %';
  const whole = (share >= 0.0995 && share < 0.9895) || share === 0 || share === 1;
  return (100 * share).toFixed(whole ? 0 : 1) + ' %';
}

/** A sentence of Python's: every second string is emphasised. */
const sentence = (parts) => parts.map((text, i) => (i % 2 ? h('strong', {}, text) : text));

/** {shape, values} of a packed array: int16, little-endian, base64. */
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const values = new Float64Array(bytes.length / 2);
  for (let i = 0; i < values.length; i++) values[i] = packed.scale * view.getInt16(2 * i, true);
  return { shape: packed.shape, values };
}

/** A percentile of magnitudes that are sorted, interpolated as NumPy does; never 0. */
function limitOf(sorted, percentile) {
  const at = (sorted.length - 1) * percentile / 100;
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  const found = sorted[low] + (sorted[high] - sorted[low]) * (at - low);
  return found || sorted[sorted.length - 1] || 1;
}
const magnitudes = (values) => Float64Array.from(values, Math.abs).sort();

/** The colour map as a table of [r, g, b]; odd length: zero has a colour of its own. */
function colourTable(hex) {
  const anchors = hex.map((c) => [1, 3, 5].map((i) => parseInt(c.slice(i, i + 2), 16)));
  const steps = 511;
  return Array.from({ length: steps }, (_, i) => {
    const at = i / (steps - 1) * (anchors.length - 1);
    const low = Math.min(Math.floor(at), anchors.length - 2);
    return anchors[low].map((v, c) => Math.round(v + (anchors[low + 1][c] - v) * (at - low)));
  });
}
const DATA = JSON.parse(document.getElementById('data').textContent);
const COLOURS = colourTable(DATA.colours);
const colourOf = (value, limit) =>
  COLOURS[Math.round((Math.max(-1, Math.min(1, value / limit)) + 1) / 2 * (COLOURS.length - 1))];
const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/** Paints values into a canvas, one pixel each; fade: alpha grows with the magnitude, up to that. */
function paint(canvas, map, limit, fade) {
  const [height, width] = map.shape;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  for (let i = 0; i < map.values.length; i++) {
    const [r, g, b] = colourOf(map.values[i], limit);
    const alpha = fade === undefined ? 1 : fade * Math.min(1, Math.abs(map.values[i]) / limit) ** 0.6;
    image.data.set([r, g, b, Math.round(255 * alpha)], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

/** The colour bar: canvas and the figures below it. */
function colourBar(limit) {
  const canvas = h('canvas', { class: 'bar', 'aria-hidden': 'true' });
  paint(canvas, { shape: [1, 256], values: Float64Array.from({ length: 256 }, (_, i) => i / 127.5 - 1) }, 1);
  return h('div', { class: 'colourbar' }, canvas, h('div', { class: 'ends' },
    h('span', {}, `${number(-limit)} against`), h('span', {}, '0'), h('span', {}, `for ${signed(limit)}`)));
}

let tip;
/** Shows lines of text beside the pointer, or hides them. */
function tooltip(event, lines) {
  if (!tip) document.body.append(tip = h('div', { class: 'tip', role: 'tooltip', hidden: true }));
  tip.hidden = !lines;
  if (!lines) return;
  tip.replaceChildren(...lines.map((line, i) => h(i ? 'div' : 'strong', {}, line)));
  const box = event.currentTarget.getBoundingClientRect();
  const x = event.clientX ? event.clientX + 14 : box.left + 20;
  const y = event.clientY ? event.clientY + 14 : box.bottom + 4;
  tip.style.left = `${Math.max(4, Math.min(x, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.max(4, Math.min(y, innerHeight - tip.offsetHeight - 8))}px`;
}
