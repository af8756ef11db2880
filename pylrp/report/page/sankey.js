// The ledger as a Sankey diagram from the output down to the input: a band as wide as the relevance, and an outflow for
// each cause in each layer.

const CAUSES = DATA.causes; // [{name, label}], in the order of the ledger's columns
const COLUMNS = ['incoming', 'outgoing', ...CAUSES.map(({ name }) => name)];
const MANY = 16; // layers; beyond that rows are low, and those that lose little are drawn together
const lost = (row) => CAUSES.reduce((sum, { name }) => sum + row[name], 0);
/** Sums of each cause over rows. */
const totals = (rows) => Object.fromEntries(CAUSES.map(({ name }) => [name, rows.reduce((sum, row) => sum + row[name], 0)]));

/** Joins runs of three and more layers that lose nearly nothing. */
function joined(rows, score) {
  const little = (row) => Math.abs(lost(row)) < 0.002 * Math.abs(score);
  const found = [];
  for (let i = 0; i < rows.length;) {
    let end = i;
    while (end < rows.length && little(rows[end])) end++;
    if (end - i < 3) {
      found.push({ ...rows[i], count: 1 });
      i++;
      continue;
    }
    const run = rows.slice(i, end);
    found.push({ layer: `${run.length} layers joined`, count: run.length, ...totals(run),
      rule: `from ${run[0].layer} to ${run[run.length - 1].layer}` });
    i = end;
  }
  return found;
}

const layerName = (name) => (/^\d+$/.test(name) ? `layer ${name}` : name);
const shorten = (text, most) => (text.length <= most ? text : '…' + text.slice(text.length - most + 1));

/** Returns {node, show(explanation, target)}. */
function sankeyView() {
  const picture = h('div', { class: 'flow' });
  const legend = h('ul', { class: 'legend' });
  const check = h('p', { class: 'check' });
  const table = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'The ledger as a table' });
  const every = h('input', { type: 'checkbox', id: 'every', change: () => draw() });
  const toggle = h('label', { for: 'every' }, every, ' draw every layer');
  const node = h('section', { class: 'card' }, h('h2', {}, 'Where its score went'),
    h('p', {}, 'The score starts at the top, at the output, and is passed down layer by layer. What a layer absorbs leaves the ',
      'diagram to the right; what arrives at the bottom is the map above. Point at a layer for its figures.'),
    toggle, legend, picture, check,
    h('details', {}, h('summary', {}, 'The same as a table: the ledger'), table));
  let rows, score, reached;

  function tipLines(row, before) {
    const lines = [row.layer, row.rule, `relevance before: ${number(before)}, after: ${number(before - lost(row))}`];
    if (row.incoming !== undefined) lines.push(`arrived in this layer: ${number(row.incoming)}`, `passed on: ${number(row.outgoing)}`);
    return [...lines, ...CAUSES.filter(({ name }) => row[name]).map(({ name, label }) => `${label}: ${number(row[name])}`)];
  }

  /** The diagram's measures: where a value lies, rows, margins. */
  function measure(shown, balances) {
    const width = Math.max(300, picture.clientWidth || 720), small = width < 560;
    const high = shown.length > MANY ? 24 : 44;
    const left = small ? 104 : 240, right = small ? 84 : 150;
    const low = Math.min(0, ...balances), span = Math.max(0, ...balances) - low || 1;
    const indent = low < 0 ? 34 : 8; // of a negative band the outflows go to the left
    const x = (v) => left + indent + (v - low) / span * (width - left - right - indent - 36);
    const top = 34, bottom = top + shown.length * high;
    const band = (from, to, y0, y1) => s('path', { class: 'band',
      d: `M${x(0)} ${y0} L${x(from)} ${y0} L${x(to)} ${y1} L${x(0)} ${y1} Z` });
    return { width, small, high, left, span, x, top, bottom, band };
  }

  const text = (at, y, content, attributes) => s('text', { x: at, y, ...attributes }, content);

  /** One cause in one layer: a curve out of the band, or into it where the cause adds relevance. */
  function outflow(m, cause, y, from, to, out, bend) {
    const [a, b] = [m.x(from), m.x(to)], [y0, y1] = out ? [y, y + m.high] : [y + m.high, y];
    const middle = (y0 + y1) / 2;
    return s('path', { class: `outflow c-${cause}${out ? '' : ' gain'}`,
      d: `M${a} ${y0} C${a} ${middle} ${a + bend} ${middle} ${a + bend} ${y1} L${b + bend} ${y1} C${b + bend} ${middle} ${b} ${middle} ${b} ${y0} Z` });
  }

  /** One layer: the band below it, an outflow for each cause, its name and what it absorbs. */
  function drawLayer(m, row, i, before) {
    const y = m.top + i * m.high, gone = lost(row);
    const focusable = { tabindex: i ? '-1' : '0', role: 'listitem', 'aria-label': tipLines(row, before).join('; ') };
    const show = (event) => tooltip(event, tipLines(row, before));
    const group = s('g', { class: 'layer', ...focusable, pointermove: show, focus: show,
      pointerleave: (e) => tooltip(e), blur: (e) => tooltip(e), keydown: roam });
    group.append(s('rect', { class: 'back', x: 0, y, width: m.width, height: m.high }));
    const parts = CAUSES.map(({ name }) => name).filter((c) => Math.abs(row[c]) >= 1e-3 * m.span);
    const flowsOut = (cause) => row[cause] * before > 0 || before === 0; // else it flows in: the band is narrow until then
    const kept = parts.filter(flowsOut).reduce((rest, cause) => rest - row[cause], before);
    group.append(m.band(kept, kept, y, y + m.high));
    let edge = before;
    for (const cause of parts) {
      const next = edge - row[cause];
      group.append(outflow(m, cause, y, edge, next, flowsOut(cause), before < 0 ? -26 : 26));
      edge = next;
    }
    const base = y + m.high / 2 + 4, most = Math.floor((m.left - 10) / 7.7);
    if (m.high > 30) {
      group.append(text(m.left - 6, base - 7, shorten(layerName(row.layer), most), { class: 'name' }));
      group.append(text(m.left - 6, base + 9, shorten(row.rule, most), { class: 'rule' }));
    } else {
      const joint = row.count > 1;
      group.append(text(m.left - 6, base, joint ? row.layer : shorten(layerName(row.layer), most), { class: joint ? 'rule' : 'name' }));
    }
    const main = CAUSES.map(({ name }) => name).reduce((a, b) => (Math.abs(row[b]) > Math.abs(row[a]) ? b : a));
    if (Math.abs(gone) >= 0.002 * Math.abs(score)) {
      group.append(text(m.width - 4, base, `${number(gone)} ${m.small ? '' : main}`, { class: 'gone' }));
    }
    return group;
  }

  function draw() {
    const many = rows.length > MANY;
    toggle.hidden = !many || joined(rows, score).length === rows.length;
    const shown = many && !every.checked ? joined(rows, score) : rows.map((row) => ({ ...row, count: 1 }));
    const balances = shown.reduce((list, row) => [...list, list[list.length - 1] - lost(row)], [score]);
    const m = measure(shown, balances), zero = m.x(0);
    const svg = s('svg', { width: m.width, height: m.bottom + 40, viewBox: `0 0 ${m.width} ${m.bottom + 40}`, role: 'list',
      'aria-label': `From the score ${number(score)} to ${number(reached)} at the input` });
    svg.append(text(zero, 18, `score ${number(score)}`, { class: 'total' }), m.band(score, score, 24, m.top));
    shown.forEach((row, i) => svg.append(drawLayer(m, row, i, balances[i])));
    svg.append(m.band(reached, reached, m.bottom, m.bottom + 10),
      s('line', { class: 'zero', x1: zero, x2: zero, y1: 24, y2: m.bottom + 10 }));
    svg.append(text(zero, m.bottom + 28, `${number(reached)} reached the input`, { class: 'total' }));
    if (m.x(score) < zero) svg.classList.add('negative');
    picture.replaceChildren(svg);
    legend.replaceChildren(h('li', {}, h('span', { class: 'key band' }), 'passed on'),
      ...CAUSES.filter(({ name }) => shown.some((row) => Math.abs(row[name]) >= 1e-3 * m.span))
        .map(({ name, label }) => h('li', {}, h('span', { class: `key c-${name}` }), label)));
  }

  /** Arrow keys go from layer to layer. */
  function roam(event) {
    const step = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
    const next = step && event.currentTarget[step];
    if (!step || !next || !next.classList.contains('layer')) return;
    event.preventDefault();
    event.currentTarget.setAttribute('tabindex', '-1');
    next.setAttribute('tabindex', '0');
    next.focus();
  }

  function addUp() {
    const worst = Math.max(...rows.map((row) => Math.abs(row.incoming - row.outgoing - lost(row))));
    const kept = rows.reduce((sum, row) => sum + lost(row), 0);
    const off = score - kept - reached, size = Math.max(Math.abs(score), ...rows.map((row) => Math.abs(row.incoming)));
    const fine = Math.abs(off) <= 1e-3 * size && worst <= 1e-9 * size;
    check.className = fine ? 'check fine' : 'check wrong';
    check.textContent = `${fine ? '✓ It adds up' : '✗ It does not add up'}: score ${number(score)} − absorbed ${number(kept)} = `
      + `${number(score - kept)}, and ${number(reached)} reached the input (difference ${number(off)}, rounding). `
      + `In every row incoming = outgoing + the causes (largest difference ${number(worst)}).`;
    const cells = (row) => COLUMNS.map((c) => h('td', {}, row[c] === undefined ? '' : number(row[c])));
    table.replaceChildren(h('table', { class: 'ledger' },
      h('thead', {}, h('tr', {}, ['layer', 'rule', ...COLUMNS].map((c) => h('th', { scope: 'col' }, c)))),
      h('tbody', {}, rows.map((row) => h('tr', {}, h('th', { scope: 'row' }, row.layer), h('td', { class: 'text' }, row.rule), cells(row)))),
      h('tfoot', {}, h('tr', {}, h('th', { scope: 'row' }, 'all layers'), h('td', {}), cells(totals(rows))))),
    h('p', {}, 'Where a value goes two ways, as around the block of a residual network, a row’s incoming is its own part only.'));
  }

  window.addEventListener('resize', () => { if (picture.isConnected && rows) draw(); });
  return {
    node,
    show(explanation, target) {
      rows = explanation.ledger;
      score = target.score;
      reached = explanation.reached;
      node.hidden = !rows.length;
      draw();
      addUp();
    },
  };
}
