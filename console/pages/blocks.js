// Blocks, newest first, and one of them with its entries.

import { Facts, html, Id, Pager, Panel, Strange, Time, Title, Waiting } from '../widgets.js'
import { Entries } from '../entries.js'
import { BlockList } from './live.js'
import { bytes, grouped } from '../format.js'
import { useData } from '../node.js'
import { useLive } from '../live.js'
import { to } from '../router.js'

export function BlocksPage({ params }) {
  const answer = useData('blocks', { before: params.before })
  const { value } = answer
  return html`
    <${Title}>Blocks</${Title}>
    <${Panel} wide>
      ${value ? html`<${BlockList} blocks=${value.blocks} /><${Pager} first=${params.before && to(['blocks'])} next=${value.next && to(['blocks'], { before: value.next })} />` : html`<${Waiting} answer=${answer} />`}
    </${Panel}>`
}

export function BlockPage({ height, params }) {
  const live = useLive()
  const answer = useData(`blocks/${encodeURIComponent(height)}`, { from: params.from })
  const { value } = answer
  if (!value) return html`<${Title}>Block</${Title}><${Waiting} answer=${answer} nothing="There is no such block yet." />`
  const newest = Math.max(live.height ?? 0, value.newest ? value.height : value.height + 1) <= value.height
  const steps = html`<nav class="steps" aria-label="Neighbouring blocks">
    ${value.height > 1 ? html`<a class="button" href=${to(['blocks', String(value.height - 1)])} rel="prev">← ${grouped(value.height - 1)}</a>` : html`<span class="faint">the first</span>`}
    ${newest ? html`<span class="faint">the newest</span>` : html`<a class="button" href=${to(['blocks', String(value.height + 1)])} rel="next">${grouped(value.height + 1)} →</a>`}
  </nav>`
  return html`
    <${Title} aside=${steps}>Block ${grouped(value.height)}</${Title}>
    <${Panel}><${Facts} two rows=${[
      ['Committed', html`<${Time} value=${value.time} />`],
      ['Hash', html`<${Id} kind="hash" value=${value.hash} />`],
      ['Parent', value.height > 1 ? html`<a href=${to(['blocks', String(value.height - 1)])}>${grouped(value.height - 1)}</a> <${Id} kind="hash" value=${value.parent} />` : html`the genesis, <${Id} kind="hash" value=${value.parent} />`],
      ['Proposer', html`<${Id} kind="hash" value=${value.proposer} />`],
      ['Entries', grouped(value.count)],
      ['Size in the log', bytes(value.bytes)],
      ['State after it', value.state ? html`<${Id} kind="hash" value=${value.state} />` : undefined],
    ]} /></${Panel}>
    <${Panel} title="Entries" wide>
      <${Entries} entries=${value.entries} empty="No entries." />
      <${Pager} first=${params.from && to(['blocks', height])} newest="First" older="Further" next=${value.next && to(['blocks', height], { from: value.next })} />
    </${Panel}>
    ${value.rejections > 0 && html`<${Panel} title="Refused beside it" wide>
      <p class="faint">Taken and then lost since the block before; not part of the block.</p>
      <dl class="facts">${value.rejected.map((lost) => html`<div key=${lost.id}><dt><${Id} kind="transaction" value=${lost.id} /></dt><dd><strong>${lost.class}</strong> <${Strange} text=${lost.message} max=${300} /></dd></div>`)}</dl>
      ${value.rejections > value.rejected.length && html`<p class="faint">and ${grouped(value.rejections - value.rejected.length)} more</p>`}
    </${Panel}>`}`
}
