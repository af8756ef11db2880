// Token ids: words on a ground of their relevance, sentences side by side, special tokens apart.

/** Returns {node, show(explanation, settings)}. */
function textView(input, index) {
  const spans = input.words.map(([text, special]) => h('span', { class: special ? 'word special' : 'word', tabindex: '0' }, text));
  const segments = [...new Set(input.words.map(([, , segment]) => segment))];
  const bar = h('div');
  const places = input.words.map(([text, special]) => h('span', { class: special ? 'word special position' : 'word position' }, text));
  const placesBar = h('div');
  const below = h('details', {}, h('summary', {}, 'Relevance of positions'),
    h('p', { class: 'note' }, 'What the network took from where a word stands, and not from the word: its tables of positions.'),
    h('p', { class: 'positions' }, places.map((span) => [span, ' '])), placesBar);
  const column = (segment, special) => input.words.map(([, s, k], i) => (k === segment && Boolean(s) === special ? [spans[i], ' '] : null));
  const node = h('div', {}, h('div', { class: 'text' }, segments.map((segment) => h('div', { class: 'sentence' },
    h('p', {}, column(segment, false)), h('p', { class: 'apart' }, column(segment, true))))), bar, below);
  let values = [];
  spans.forEach((span, i) => {
    const show = (event) => tooltip(event, [input.words[i][0], `relevance ${signed(values[i])}`]);
    for (const name of ['pointermove', 'focus']) span.addEventListener(name, show);
    for (const name of ['pointerleave', 'blur']) span.addEventListener(name, (event) => tooltip(event, null));
  });
  return {
    node,
    show(explanation, settings) {
      values = explanation.maps[index].values;
      const plain = values.filter((_, i) => !input.words[i][1]);
      const limit = limitOf(magnitudes(plain.length ? plain : values), settings.clip);
      spans.forEach((span, i) => {
        span.style.backgroundColor = css(colourOf(values[i], limit));
        span.style.color = Math.abs(values[i]) / limit >= 0.55 ? '#fff' : '#1c2733';
        span.setAttribute('aria-label', `${input.words[i][0]}, relevance ${signed(values[i])}`);
      });
      bar.replaceChildren(colourBar(limit));
      const own = explanation.maps[index].positions;
      below.hidden = !own;
      if (!own) return;
      const most = limitOf(magnitudes(own), 100);
      places.forEach((span, i) => {
        span.style.borderBottomColor = css(colourOf(own[i], most));
        span.setAttribute('title', `position of ${input.words[i][0]}: relevance ${signed(own[i])}`);
      });
      placesBar.replaceChildren(colourBar(most));
    },
  };
}
