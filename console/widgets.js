// The small parts that all pages are made of.

import { createElement } from './vendor/preact.js'
import { useEffect, useMemo, useRef, useState } from './vendor/hooks.js'
import htm from './vendor/htm.js'
import { grouped, indented, short, TEXT_CHARS_MAX, time, visible } from './format.js'
import { to } from './router.js'

export const html = htm.bind(createElement)

/** Where an id of each kind leads. */
const PAGES = {
  transaction: (id) => to(['transactions', id]),
  asset: (id) => to(['assets', id]),
  key: (id) => to(['keys', id]),
  block: (id) => to(['blocks', String(id)]),
  object: (name) => to(['channels', name]),
}

/** A text of a stranger: what could hide or reorder is spelled out, and it stands for itself. */
export function Strange({ text, max = 200 }) {
  const cut = text.length > max
  const shown = visible(cut ? text.slice(0, max) : text)
  return html`<bdi class="strange">${shown}${cut && html`<span class="faint">… (${grouped(text.length)} characters)</span>`}</bdi>`
}

/** An id: shortened unless `whole`, a link where its kind has a page, with a button that copies it. */
export function Id({ kind, value, whole, label, plain }) {
  const shown = label ?? (whole ? value : short(value))
  const href = PAGES[kind]?.(value)
  const body = html`<bdi class=${whole ? 'mono whole' : 'mono'}>${visible(String(shown))}</bdi>`
  return html`<span class="id">
    ${href && !plain ? html`<a href=${href} title=${visible(String(value))}>${body}</a>` : html`<span title=${visible(String(value))}>${body}</span>`}
    <${Copy} text=${String(value)} what=${kind === 'transaction' ? 'id' : kind ?? 'text'} />
  </span>`
}

/** A button that copies a text and says so. */
export function Copy({ text, what = 'text', label }) {
  const [state, setState] = useState('')
  useEffect(() => {
    if (!state) return undefined
    const timer = setTimeout(() => setState(''), 1_500)
    return () => clearTimeout(timer)
  }, [state])
  const copy = async (event) => {
    event.preventDefault()
    event.stopPropagation()
    setState((await copied(text)) ? 'copied' : 'failed')
  }
  const said = state === 'copied' ? 'Copied' : state === 'failed' ? 'Could not copy' : `Copy the ${what}`
  return html`<button type="button" class=${label ? 'button' : `copy ${state}`} onClick=${copy} aria-label=${said} title=${said}>
    ${label ? (state ? said : label) : html`<svg viewBox="0 0 16 16" aria-hidden="true">${state === 'copied'
      ? html`<path d="M3 8.5l3.2 3.2L13 4.8" />`
      : html`<rect x="5.5" y="5.5" width="8" height="8" rx="1.5" /><path d="M10.5 3.2V3a1.5 1.5 0 0 0-1.5-1.5H4A1.5 1.5 0 0 0 2.5 3v5A1.5 1.5 0 0 0 4 9.5h.2" />`}</svg>`}
  </button>`
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    // Without TLS a browser gives no clipboard to a page of another machine; the old way still works.
    const area = document.createElement('textarea')
    area.value = text
    area.className = 'offscreen'
    document.body.append(area)
    area.select()
    const done = document.execCommand('copy')
    area.remove()
    return done
  }
}

/** A time: local, as ISO 8601 under the pointer. */
export function Time({ value }) {
  const { text, iso } = time(value)
  return html`<time datetime=${iso} title=${iso}>${text}</time>`
}

/** An amount with its digits in groups. */
export function Amount({ value }) {
  return html`<span class="amount">${grouped(value)}</span>`
}

/** What a kind of entry is called, with the colour of its book. */
export function Kind({ kind }) {
  const [book, verb = ''] = kind.split('.')
  return html`<span class=${`kind ${book}`}>${book === 'asset' ? verb : `${book} ${verb}`.replaceAll('_', ' ')}</span>`
}

/** Whether one came to the present page from another one. */
let moved = false
addEventListener('hashchange', () => { moved = true })

/** A heading that takes the focus when one comes to its page, so that readers of screens know where they are. */
export function Title({ children, aside }) {
  const heading = useRef()
  useEffect(() => { if (moved) heading.current?.focus({ preventScroll: true }) }, [])
  return html`<header class="title"><h1 tabindex="-1" ref=${heading}>${children}</h1>${aside && html`<div class="aside">${aside}</div>`}</header>`
}

/** A box with a heading. */
export function Panel({ title, aside, children, wide }) {
  return html`<section class=${wide ? 'panel wide' : 'panel'}>
    ${title && html`<header><h2>${title}</h2>${aside && html`<div class="aside">${aside}</div>`}</header>`}
    ${children}
  </section>`
}

/** Names and values, side by side in two columns where there is room and `two` asks for it. Rows without a value are left out. */
export function Facts({ rows, two }) {
  const given = rows.filter((row) => row && row[1] !== undefined && row[1] !== null && row[1] !== false)
  return html`<dl class=${two ? 'facts two' : 'facts'}>${given.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`
}

/** What stands where there is nothing. */
export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`
}

/** The state of an answer that is not there: on its way, or why not. */
export function Waiting({ answer, nothing = 'Nothing is known under this name.' }) {
  const { problem } = answer
  if (!problem) return html`<p class="empty" aria-busy="true">Loading…</p>`
  if (problem.status === 404) return html`<${Empty}>${nothing}</${Empty}>`
  return html`<p class="problem" role="alert">${visible(problem.message)}</p>`
}

/** Links to the pages of a list. */
export function Pager({ first, next, newest = 'Newest', older = 'Older' }) {
  if (!first && !next) return null
  return html`<nav class="pager" aria-label="Pages of the list">
    ${first ? html`<a class="button" href=${first}>← ${newest}</a>` : html`<span></span>`}
    ${next ? html`<a class="button" href=${next} rel="next">${older} →</a>` : html`<span class="faint">End of the list</span>`}
  </nav>`
}

/** A JSON text, indented; a long one from its beginning only until one asks. */
export function Source({ text, file }) {
  const [all, setAll] = useState(false)
  const long = text.length > TEXT_CHARS_MAX
  const shown = useMemo(() => visible(indented(all || !long ? text : text.slice(0, TEXT_CHARS_MAX))), [text, all])
  return html`<div class="source">
    <div class="tools">
      <${Copy} text=${text} what="JSON" label="Copy" />
      ${file && html`<a class="button" href=${file} target="_blank" rel="noopener">Open raw</a>`}
      <span class="faint">${grouped(text.length)} characters</span>
    </div>
    <pre tabindex="0" aria-label="JSON"><bdi>${shown}</bdi></pre>
    ${long && !all && html`<p class="empty">Only the beginning is shown. <button type="button" class="button" onClick=${() => setAll(true)}>Show all of it</button></p>`}
  </div>`
}
