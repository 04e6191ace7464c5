// A small plot of one value over time, drawn as SVG so that it follows the page's colours and size.

import { useState } from './vendor/hooks.js'
import { html } from './widgets.js'
import { measure } from './format.js'

const WIDTH = 480
const HEIGHT = 96

/** The next number above that is easy to read off an axis. */
function ceiling(value) {
  if (!(value > 0)) return 1
  const ten = 10 ** Math.floor(Math.log10(value))
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * ten).find((step) => step >= value)
}

/**
 * `values` from oldest to newest at equal distances, `undefined` where nothing was measured. `seconds` is
 * what they span.
 */
export function Plot({ title, values, unit, seconds, digits = measure }) {
  const [at, setAt] = useState(undefined)
  const known = values.filter((value) => value !== undefined)
  const top = ceiling(Math.max(0, ...known))
  const x = (index) => (index / Math.max(1, values.length - 1)) * WIDTH
  const y = (value) => HEIGHT - 2 - (Math.min(value, top) / top) * (HEIGHT - 6)
  const pieces = []
  let piece = []
  values.forEach((value, index) => {
    if (value === undefined) {
      if (piece.length) pieces.push(piece)
      piece = []
    } else {
      piece.push([x(index), y(value)])
    }
  })
  if (piece.length) pieces.push(piece)
  const path = (points) => points.map(([px, py], index) => `${index ? 'L' : 'M'}${px.toFixed(1)} ${py.toFixed(1)}`).join('')
  const closed = (points) => `${path(points)}L${points.at(-1)[0].toFixed(1)} ${HEIGHT}L${points[0][0].toFixed(1)} ${HEIGHT}Z`
  const shownAt = at !== undefined && values[at] !== undefined ? at : values.findLastIndex((value) => value !== undefined)
  const shown = shownAt >= 0 ? values[shownAt] : undefined
  const ago = Math.round(((values.length - 1 - shownAt) / Math.max(1, values.length - 1)) * seconds)
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect()
    const part = (event.clientX - box.left) / Math.max(1, box.width)
    setAt(Math.max(0, Math.min(values.length - 1, Math.round(part * (values.length - 1)))))
  }
  const said = shown === undefined ? `${title}: nothing measured yet` : `${title}: ${digits(shown)} ${unit}, at most ${digits(Math.max(...known))} in ${seconds} seconds`
  return html`<figure class="plot">
    <figcaption>
      <span>${title}</span>
      <strong>${shown === undefined ? '–' : digits(shown)} <small>${unit}${at !== undefined && ago > 0 ? `, ${ago} s ago` : ''}</small></strong>
    </figcaption>
    <div class="frame">
      <span class="top">${digits(top)}</span>
      <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${said}
        onPointerMove=${point} onPointerLeave=${() => setAt(undefined)}>
        <line class="grid" x1="0" x2=${WIDTH} y1=${y(top)} y2=${y(top)} />
        <line class="grid" x1="0" x2=${WIDTH} y1=${y(top / 2)} y2=${y(top / 2)} />
        ${pieces.map((points, index) => html`<g key=${index}><path class="area" d=${closed(points)} /><path class="curve" d=${path(points)} /></g>`)}
        ${at !== undefined && html`<line class="cursor" x1=${x(at)} x2=${x(at)} y1="0" y2=${HEIGHT} />`}
      </svg>
      <span class="left">${seconds} s ago</span><span class="right">now</span>
    </div>
  </figure>`
}
