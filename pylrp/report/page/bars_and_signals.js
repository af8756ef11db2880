// Inputs other than images: a table as signed bars, a signal as a line over coloured bands.

const FIRST = 15; // bars that are shown until all are asked for

/** Returns {node, show(explanation, settings)}: the strongest features first. */
function tableView(input, index) {
  const body = h('tbody');
  const more = h('button', { type: 'button', click: () => { all = !all; draw(); } });
  const node = h('div', { class: 'features' }, h('table', {}, h('thead', {}, h('tr', {},
    h('th', { scope: 'col' }, 'feature'), h('th', { scope: 'col', class: 'figure value' }, 'its value'),
    h('th', { scope: 'col', class: 'sides' }, h('span', {}, 'against'), h('span', {}, 'for')),
    h('th', { scope: 'col', class: 'figure' }, 'relevance'))), body), more);
  let all = false, values = [];

  function draw() {
    const limit = Math.max(...values.map(Math.abs)) || 1;
    const order = values.map((_, i) => i).sort((a, b) => Math.abs(values[b]) - Math.abs(values[a]));
    body.replaceChildren(...(all ? order : order.slice(0, FIRST)).map((i) => {
      const bar = h('span', { class: values[i] < 0 ? 'bar against' : 'bar for' });
      bar.style.width = `${50 * Math.abs(values[i]) / limit}%`;
      bar.style.backgroundColor = css(colourOf(Math.sign(values[i]) * (0.55 + 0.25 * Math.abs(values[i]) / limit), 1));
      return h('tr', {}, h('th', { scope: 'row' }, input.names[i], h('small', {}, ` =\u00a0${number(input.values[i])}`)),
        h('td', { class: 'figure value' }, number(input.values[i])),
        h('td', { class: 'track' }, bar), h('td', { class: 'figure' }, signed(values[i])));
    }));
    more.hidden = values.length <= FIRST;
    more.textContent = all ? `only the ${FIRST} strongest` : `all ${values.length} features`;
  }
  return { node, show(explanation) { values = explanation.maps[index].values; draw(); } };
}

/** Writes the name of a lane into its upper left corner. */
function lane0(context, name, y) {
  context.font = '600 12px system-ui, sans-serif';
  context.textBaseline = 'top';
  context.lineWidth = 4;
  context.lineJoin = 'round';
  context.strokeStyle = 'rgb(255 255 255 / .85)';
  context.strokeText(name, 6, y + 4);
  context.fillStyle = '#16202b';
  context.fillText(name, 6, y + 4);
}

/** The axis below a signal: round numbers where they lie. */
function axis(times) {
  const first = times[0], span = times[times.length - 1] - first || 1;
  const rough = span / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
  const node = h('div', { class: 'axis' });
  for (let k = Math.ceil(first / step - 1e-9); k * step <= first + span * (1 + 1e-9); k++) {
    const value = k * step;
    let i = times.findIndex((t) => t >= value - step * 1e-9);
    if (i < 0) i = times.length - 1;
    const back = i && times[i] > value ? (times[i] - value) / (times[i] - times[i - 1]) : 0;
    const tick = h('span', {}, number(Math.abs(value) < step * 1e-9 ? 0 : Number(value.toPrecision(12))));
    tick.style.left = `${100 * (i - back + 0.5) / times.length}%`;
    node.append(tick);
  }
  return node;
}

/** Returns {node, show(explanation, settings)}. */
function signalView(input, index) {
  const lines = unpack(input.lines);
  const [lanes, length] = lines.shape;
  const canvas = h('canvas', { tabindex: '0', role: 'img', class: 'signal' });
  const times = input.times || Array.from({ length }, (_, i) => i);
  const where = (i) => (input.times ? number(times[i]) : `position ${i}`);
  const named = (l) => (input.lanes ? `${input.lanes[l]} ` : '');
  const readout = h('p', { class: 'readout', 'aria-live': 'polite' });
  const bar = h('div');
  const below = input.rows ? timeByFeature(input, index, length, where) : null;
  const node = h('div', {}, canvas, axis(times), bar, readout, below && below.node);
  const idle = 'Point at the signal, or use the arrow keys on it, to read single positions.';
  let map, settings, at = null, limit = 1;

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(300, canvas.clientWidth || 700), lane = lanes > 1 ? Math.max(56, 260 / lanes) : 220;
    canvas.width = width * ratio;
    canvas.height = lanes * lane * ratio;
    canvas.style.height = `${lanes * lane}px`;
    const context = canvas.getContext('2d');
    context.scale(ratio, ratio);
    const x = (i) => (i + 0.5) / length * width;
    for (let l = 0; l < lanes; l++) {
      const part = lines.values.subarray(l * length, (l + 1) * length);
      const low = part.reduce((a, b) => Math.min(a, b)), span = part.reduce((a, b) => Math.max(a, b)) - low || 1;
      const y = (v) => (l + 1) * lane - 8 - (v - low) / span * (lane - 16);
      for (let i = 0; i < length; i++) {
        context.fillStyle = css(colourOf(map.values[l * length + i], limit));
        context.fillRect(i / length * width, l * lane, width / length + 0.6, lane - (lanes > 1 ? 3 : 0));
      }
      if (input.lanes) lane0(context, input.lanes[l], l * lane);
      context.beginPath();
      part.forEach((v, i) => context.lineTo(x(i), y(v)));
      context.lineJoin = 'round';
      for (const [thick, colour] of [[4, 'rgb(255 255 255 / .75)'], [1.8, '#16202b']]) {
        context.lineWidth = thick;
        context.strokeStyle = colour;
        context.stroke();
      }
    }
    if (at !== null) {
      context.fillStyle = '#16202b';
      context.fillRect(x(at), 0, 1, lanes * lane);
    }
    const heard = (values) => Array.from({ length: lanes }, (_, l) => `${named(l)}${signed(values[l * length + at])}`).join(', ');
    readout.textContent = at === null ? idle : `At ${where(at)}: value ${heard(lines.values)}; relevance ${heard(map.values)}.`;
  }
  canvas.addEventListener('pointermove', (event) => {
    const box = canvas.getBoundingClientRect();
    at = Math.max(0, Math.min(length - 1, Math.floor((event.clientX - box.left) / box.width * length)));
    draw();
  });
  canvas.addEventListener('pointerleave', () => { at = null; draw(); });
  canvas.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    at = Math.max(0, Math.min(length - 1, (at ?? length >> 1) + step * (event.shiftKey ? 10 : 1)));
    event.preventDefault();
    draw();
  });
  window.addEventListener('resize', () => { if (canvas.isConnected) draw(); });

  return {
    node,
    show(explanation, chosen) {
      settings = chosen;
      map = unpack(explanation.maps[index]);
      limit = limitOf(magnitudes(map.values), settings.clip);
      canvas.setAttribute('aria-label', `Signal, coloured by relevance. ${explanation.where[index].join('')}`);
      bar.replaceChildren(colourBar(limit));
      draw();
      if (below) below.show(explanation, chosen);
    },
  };
}
