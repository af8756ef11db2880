// Heads of attention: relevance of what each head puts out, a row a layer, a column a head.

/** Returns {node, show(explanation)}. */
function headsView() {
  const grid = h('div', { class: 'scroll' });
  const bar = h('div');
  const node = h('section', { class: 'card heads' }, h('h2', {}, 'Heads of attention'),
    h('p', {}, 'Relevance that what each head puts out has in all: a row a layer, the last one on top, a column a head.'), grid, bar);
  return {
    node,
    show(explanation) {
      const found = explanation.heads;
      node.hidden = !found;
      if (!found) return;
      const limit = Math.max(...found.values.flat().map(Math.abs)) || 1;
      const cell = (name, value, k) => {
        const made = h('td', { tabindex: '0', 'aria-label': `${layerName(name)}, head ${k + 1}: relevance ${signed(value)}` });
        made.style.backgroundColor = css(colourOf(value, limit));
        const show = (event) => tooltip(event, [`head ${k + 1}`, layerName(name), `relevance ${signed(value)}`]);
        for (const type of ['pointermove', 'focus']) made.addEventListener(type, show);
        for (const type of ['pointerleave', 'blur']) made.addEventListener(type, (event) => tooltip(event, null));
        return made;
      };
      const rows = found.layers.map((name, i) => h('tr', {}, h('th', { scope: 'row', title: name }, shorten(layerName(name), 28)),
        found.values[i].map((value, k) => cell(name, value, k))));
      grid.replaceChildren(h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, ''),
        found.values[0].map((_, k) => h('th', { scope: 'col' }, String(k + 1))))), h('tbody', {}, rows)));
      bar.replaceChildren(colourBar(limit));
    },
  };
}
