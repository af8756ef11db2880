// Token ids: words on a ground of their relevance, sentences side by side, special tokens apart.

/** Returns {node, show(explanation, settings)}. */
function textView(input, index) {
  const spans = input.words.map(([text, special]) => h('span', { class: special ? 'word special' : 'word', tabindex: '0' }, text));
  const segments = [...new Set(input.words.map(([, , segment]) => segment))];
  const bar = h('div');
  const column = (segment, special) => input.words.map(([, s, k], i) => (k === segment && Boolean(s) === special ? [spans[i], ' '] : null));
  const node = h('div', {}, h('div', { class: 'text' }, segments.map((segment) => h('div', { class: 'sentence' },
    h('p', {}, column(segment, false)), h('p', { class: 'apart' }, column(segment, true))))), bar);
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
    },
  };
}
