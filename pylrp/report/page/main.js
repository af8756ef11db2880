// The page: samples, classes, composites and sliders, and the parts that follow them.

const state = { sample: 0, target: 0, composite: 0, clip: 99.5, blend: 85, outline: true };
const VIEWS = { image: pictureView, table: tableView, signal: signalView, text: textView };

function range(id, label, min, max, step, value, change) {
  const output = h('output', { for: id });
  const input = h('input', { type: 'range', id, min, max, step, value, input: () => { change(Number(input.value)); } });
  return { node: h('div', { class: 'control' }, h('label', { for: id }, label), input, output), output };
}

/** The choice of the class that is explained; none where there is one only. */
function classChoice(targets, update) {
  return h('fieldset', { class: 'classes', hidden: targets.length === 1 }, h('legend', {}, 'Show the evidence for'), targets.map((target, i) => {
    const meter = h('span', { class: 'fill' });
    meter.style.width = `${100 * (target.probability ?? 0)}%`;
    return h('label', {}, h('input', { type: 'radio', name: 'target', value: String(target.index), checked: i === state.target,
      change: () => { state.target = i; update(); } }),
    h('span', { class: 'label' }, target.label),
    target.probability === null ? null : h('span', { class: 'track', 'aria-hidden': 'true' }, meter),
    h('span', { class: 'chance' }, target.probability === null ? number(target.score) : percent(target.probability)));
  }));
}

/** What is needed to repeat an explanation: code, rules, versions. */
function toRepeat(sample) {
  return h('section', { class: 'card' }, h('h2', {}, 'To repeat it'), h('p', {}, DATA.network),
    DATA.notes.map((note) => h('p', { class: 'note' }, `Note: ${note}.`)),
    h('details', { open: true }, h('summary', {}, 'Python'), h('pre', { tabindex: '0' }, sample.code)),
    sample.composites.map((name) => h('details', {}, h('summary', {}, `Layers and rules of ${name}`),
      h('pre', { tabindex: '0' }, DATA.summaries[name]))),
    h('details', {}, h('summary', {}, 'Versions'), h('dl', {}, Object.entries(DATA.versions)
      .map(([name, value]) => [h('dt', {}, name), h('dd', {}, String(value))]))));
}

/** Everything about one sample; returns its element. */
function sampleView(sample) {
  const views = sample.inputs.map((input, i) => VIEWS[input.kind](input, i));
  const flow = sankeyView();
  const heads = headsView();
  const inner = layersView();
  const where = h('div', { id: 'where' });
  const account = h('p', { id: 'account' });
  const about = h('p', { class: 'about', id: 'about' });
  const pictures = sample.inputs.some((input) => input.kind === 'image');
  const colours = sample.inputs.some((input) => input.kind !== 'table');
  let waiting = false;

  const clip = range('clip', 'Contrast', 90, 100, 0.1, state.clip, (v) => { state.clip = v; soon(); });
  const blend = range('blend', 'Heatmap over the input', 0, 100, 1, state.blend, (v) => { state.blend = v; soon(); });
  const outline = h('input', { type: 'checkbox', id: 'outline', checked: state.outline,
    change: () => { state.outline = outline.checked; soon(); } });
  const composite = h('select', { id: 'composite', change: () => { state.composite = composite.selectedIndex; update(); } },
    sample.composites.map((name, i) => h('option', { selected: i === state.composite }, name)));

  const explained = () => sample.explanations[state.composite][state.target];
  function soon() { // one drawing a frame, however fast the slider moves
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }
  async function draw() {
    clip.output.textContent = `full colour from the ${state.clip.toFixed(1)}th percentile on`;
    blend.output.textContent = `${state.blend} %`;
    await Promise.all(views.map((view) => view.show(explained(), state)));
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn || 0) + 1);
  }
  function update() {
    const explanation = explained(), target = sample.targets[state.target];
    where.replaceChildren(...explanation.where.map((parts, i) => h('p', {},
      sample.inputs.length > 1 ? h('em', {}, `${sample.inputs[i].name}: `) : null, sentence(parts))));
    account.replaceChildren(...sentence(explanation.account));
    const chance = target.probability === null ? '' : `, probability ${percent(target.probability)}`;
    about.textContent = `Shown: the evidence for and against “${target.label}” (score ${number(target.score)}${chance}).`;
    flow.show(explanation, target);
    heads.show(explanation);
    inner.show(explanation, state);
    draw();
  }

  const classes = classChoice(sample.targets, update);
  const made = sample.inputs.some((input) => input.made)
    ? h('p', { class: 'note' }, 'The picture is made from the numbers the network got; its brightness is stretched.') : null;

  const node = h('div', { class: 'sample' },
    h('section', { class: 'card answer' }, h('p', { class: 'name' }, sample.name),
      h('h1', {}, 'The network predicts: ', h('span', { id: 'answer' }, sample.answer)),
      h('p', { id: 'certainty' }, sentence(sample.certainty)), classes, where, account,
      sample.how ? h('p', { class: 'note' }, sample.how) : null),
    h('section', { class: 'card' }, h('h2', {}, 'Where to look'), about,
      views.map((view, i) => [sample.inputs.length > 1 ? h('h3', {}, sample.inputs[i].name) : null, view.node]),
      h('div', { class: 'controls' }, colours ? clip.node : null, pictures ? blend.node : null,
        pictures ? h('label', { class: 'control', for: 'outline' }, outline, ' outline where half of the evidence lies') : null,
        h('div', { class: 'control' }, h('label', { for: 'composite' }, 'Rules (composite)'), composite)),
      made),
    flow.node, heads.node, inner.node,
    toRepeat(sample));
  return { node, update };
}

/** A line a sample, sorted by the column whose head is pressed; open(i) opens a sample. */
function overview(open, sorted) {
  const chance = DATA.samples.some((sample) => sample.sure !== null);
  const traced = (sample) => sample.explanations[0][0].reached / (sample.targets[0].score || 1);
  const columns = [
    ['as added', (_, i) => i, (_, i) => String(i + 1)], ['sample', (sample) => sample.name, (sample) => sample.name],
    ['the network predicts', (sample) => sample.answer, (sample) => sample.answer],
    chance ? ['how sure', (sample) => sample.sure ?? -1, (sample) => (sample.sure === null ? '' : percent(sample.sure))]
      : ['output', (sample) => sample.score, (sample) => number(sample.score)],
    ['shown in the map', traced, (sample) => `${number(Math.round(100 * traced(sample)))} %`]];
  const rows = DATA.samples.map((sample, i) => h('tr', { tabindex: '0', click: () => open(i),
    keydown: (event) => { if (event.key === 'Enter') open(i); } },
  columns.map(([, , text], c) => h('td', { class: c > 2 ? 'figure' : null }, text(sample, i)))));
  const body = h('tbody', {}, rows);
  let by = 0, down = false;
  function sort(c) {
    down = c === by && !down;
    by = c;
    const key = columns[c][1], keys = DATA.samples.map((sample, i) => key(sample, i));
    const order = rows.map((_, i) => i).sort((a, b) => {
      const way = typeof keys[a] === 'string' ? keys[a].localeCompare(keys[b], undefined, { numeric: true }) : keys[a] - keys[b];
      return (down ? -way : way) || a - b;
    });
    body.replaceChildren(...order.map((i) => rows[i]));
    heads.forEach((head, k) => head.setAttribute('aria-sort', k !== c ? 'none' : down ? 'descending' : 'ascending'));
    sorted(order);
  }
  const heads = columns.map(([name], c) => h('th', { scope: 'col', class: c > 2 ? 'figure' : null,
    'aria-sort': c ? 'none' : 'ascending' }, h('button', { type: 'button', click: () => sort(c) }, name)));
  const node = h('details', { class: 'card overview', open: DATA.samples.length > 8 },
    h('summary', {}, `Overview of ${DATA.samples.length} samples`),
    h('div', { class: 'scroll' }, h('table', {}, h('thead', {}, h('tr', {}, heads)), body)));
  return { node, mark(i) { rows.forEach((row, k) => row.setAttribute('aria-selected', String(k === i))); } };
}

function main() {
  const place = h('main');
  const thumbs = DATA.samples.map((sample, i) => {
    const image = sample.inputs.find((input) => input.image);
    return h('button', { type: 'button', click: () => open(i) }, image ? h('img', { src: image.image, alt: '' }) : null,
      h('span', {}, sample.name), h('strong', {}, sample.answer));
  });
  const strip = h('nav', { 'aria-label': 'Samples' }, thumbs);
  const all = overview(open, (order) => strip.replaceChildren(...order.map((i) => thumbs[i])));
  function open(i) {
    state.sample = i;
    state.target = 0;
    state.composite = Math.min(state.composite, DATA.samples[i].composites.length - 1);
    all.mark(i);
    thumbs.forEach((button, k) => button.setAttribute('aria-pressed', String(k === i)));
    const view = sampleView(DATA.samples[i]);
    place.replaceChildren(view.node);
    view.update();
  }
  document.getElementById('page').append(
    h('header', {}, h('p', { class: 'title' }, DATA.title),
      DATA.samples.length > 1 ? [strip, all.node] : null),
    place,
    h('footer', {}, `Made by pylrp ${DATA.versions.pylrp} with layer-wise relevance propagation: the network’s score is traced back, `,
      'layer by layer, to the inputs it came from. A map shows what this network used, not whether it was right to.'));
  open(0);
}
main();
