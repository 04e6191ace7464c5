// All transactions of all books, newest first, page by page.

import { html, Pager, Panel, Title, Waiting } from '../widgets.js'
import { Entries } from '../entries.js'
import { useData } from '../node.js'
import { useLive } from '../live.js'
import { useState } from '../vendor/hooks.js'
import { grouped } from '../format.js'
import { go, to } from '../router.js'

const KINDS = [
  ['', 'Everything'],
  ['asset', 'Assets'],
  ['asset.create', 'Assets: create'],
  ['asset.transfer', 'Assets: transfer'],
  ['tracker', 'Tracker'],
  ['consortium', 'Consortium'],
]

/** One page of a list of entries that grows at its beginning: what was read stays where it was. */
export function EntryPages({ question, base, params, before, empty }) {
  const [shown, setShown] = useState(0)
  const answer = useData('entries', { ...question, before }, shown)
  const live = useLive()
  const { value } = answer
  if (!value) return html`<${Waiting} answer=${answer} />`
  const newest = value.entries[0]?.position
  const news = before || question.key || question.asset || question.object ? 0 : newsSince(live, newest, question.kind)
  return html`
    ${news > 0 && html`<p class="news" role="status"><button type="button" class="button" onClick=${() => setShown(shown + 1)}>${grouped(news)} newer: show</button></p>`}
    <${Entries} entries=${value.entries} empty=${value.next ? 'Nothing among the newest. Older ones may have some.' : empty} />
    <${Pager} first=${before && to(base, params)} next=${value.next && to(base, { ...params, before: value.next })} />`
}

/** Entries that committed since a list was read, as far as they were told. */
function newsSince(live, newest, kind) {
  if (!newest) return live.entries.length
  const [height] = newest.split('.').map(Number)
  return live.blocks
    .filter((block) => block.height > height)
    .reduce((sum, block) => sum + (kind ? ofKind(block, kind) : block.count), 0)
}

function ofKind(block, wanted) {
  return Object.entries(block.kinds ?? {}).reduce((sum, [kind, count]) => sum + (kind === wanted || kind.startsWith(wanted + '.') ? count : 0), 0)
}

export function TransactionsPage({ params }) {
  const { before, kind } = params
  const choose = (event) => go(['transactions'], { kind: event.currentTarget.value })
  return html`
    <${Title} aside=${html`<label class="choice">Show <select value=${kind ?? ''} onChange=${choose}>${KINDS.map(([value, name]) => html`<option key=${value} value=${value} selected=${value === (kind ?? '')}>${name}</option>`)}</select></label>`}>Transactions</${Title}>
    <${Panel} wide>
      <${EntryPages} key=${`${kind} ${before}`} question=${{ kind }} base=${['transactions']} params=${{ kind }} before=${before} empty="No transaction has been committed yet." />
    </${Panel}>`
}
