// Inside the network: relevance of some layers, and the strongest channels of the one that is chosen.

/** Returns {node, show(explanation, settings)}. */
function layersView() {
  const strip = h('div', { class: 'layers', role: 'group', 'aria-label': 'Layers, from the output to the input' });
  const detail = h('div', { class: 'channels', 'aria-live': 'polite' });
  const node = h('section', { class: 'card' }, h('h2', {}, 'Inside the network'),
    h('p', {}, 'Relevance of each layer, from the output (left) to the input (right): coarse and few at first, then finer. ',
      'Choose a layer to see which of its channels, the detectors it has learnt, carried most.'),
    strip, detail);
  let layers = [], chosen = null, clip = 99.5;

  function mapCanvas(packed, label) {
    const map = unpack(packed);
    const canvas = h('canvas', { role: 'img', 'aria-label': label, class: map.shape[0] > 1 ? 'coarse' : 'coarse line' });
    paint(canvas, map, limitOf(magnitudes(map.values), clip));
    return canvas;
  }

  function choose(name) {
    chosen = name;
    for (const button of strip.children) button.setAttribute('aria-pressed', String(button.dataset.layer === name));
    const layer = layers.find((each) => each.name === name);
    const most = Math.max(...layer.channels.map((c) => Math.abs(c.sum))) || 1;
    detail.replaceChildren(
      h('h3', {}, `${layerName(layer.name)}: the strongest of its ${layer.shape[0]} ${layer.shape.length > 1 ? 'channels' : 'neurons'}`),
      h('ul', {}, layer.channels.map((channel) => {
        const bar = h('span', { class: 'strength' });
        bar.style.width = `${100 * Math.abs(channel.sum) / most}%`;
        bar.style.backgroundColor = css(colourOf(Math.sign(channel.sum) * 0.7, 1));
        const share = ` (${percent(channel.share)} of what passed here)`;
        return h('li', {}, channel.map ? mapCanvas(channel.map, `Map of channel ${channel.index}`) : null,
          h('div', {}, `${layer.shape.length > 1 ? 'channel' : 'neuron'} ${channel.index}`, h('br'), `${signed(channel.sum)}${share}`,
            h('div', { class: 'meter' }, bar)));
      })));
  }

  return {
    node,
    show(explanation, settings) {
      layers = explanation.layers;
      clip = settings.clip;
      node.hidden = !layers.length;
      if (!layers.length) return;
      strip.replaceChildren(...layers.map((layer) => h('button',
        { type: 'button', 'data-layer': layer.name, title: layer.name, click: () => choose(layer.name) },
        layer.map ? mapCanvas(layer.map, `Relevance of layer ${layer.name}`) : h('span', { class: 'flat', 'aria-hidden': 'true' }, `${layer.shape[0]}`),
        h('span', { class: 'name' }, shorten(layerName(layer.name), 22)), h('span', { class: 'rule' }, `${layer.kind}, ${layer.shape.join(' × ')}`))));
      choose(layers.some((each) => each.name === chosen) ? chosen : layers[0].name);
    },
  };
}
