// How the node is: health, what it keeps, its public keys, its meters.

import { useState } from '../vendor/hooks.js'
import { Empty, Facts, html, Id, Panel, Time, Title, Waiting } from '../widgets.js'
import { bytes, grouped, visible } from '../format.js'
import { metrics, useAnswer, usePolled } from '../node.js'
import { useLive } from '../live.js'
import { to } from '../router.js'

/** Milliseconds between two looks. */
const LOOK_MS = 2_000

export function NodePage() {
  const live = useLive()
  const answer = usePolled('/console/data/node', LOOK_MS)
  const meters = usePolled('/metrics', LOOK_MS, metrics)
  const { value } = answer
  if (!value) return html`<${Title}>Node</${Title}><${Waiting} answer=${answer} />`
  const gone = live.status === 'lost'
  const health = gone ? ['bad', 'not reachable'] : value.failed ? ['bad', 'stopped taking writes'] : value.ready ? ['good', 'healthy'] : ['bad', 'takes no transactions']
  return html`
    <${Title} aside=${html`<span class=${`status ${health[0]}`}>${health[1]}</span>`}>Node</${Title}>
    <div class="tiles">
      <div class="tile"><span>Height</span><strong><a href=${to(['blocks', String(value.height)])}>${grouped(value.height)}</a></strong></div>
      <div class="tile"><span>Transactions</span><strong>${grouped(value.transactions)}</strong></div>
      <div class="tile"><span>Waiting</span><strong>${grouped(value.pool.transactions)}</strong></div>
      <div class="tile"><span>Log on disk</span><strong>${bytes(value.log_bytes)}</strong></div>
    </div>
    <${Panel} title="Ledger"><${Facts} two rows=${[
      ['Chain', html`<bdi>${visible(value.chain)}</bdi>`],
      ['Genesis', html`<${Id} kind="hash" value=${value.genesis} />`],
      ['Began', html`<${Time} value=${value.began} />`],
      ['Newest block', value.height > 0 ? html`<${Time} value=${value.time} />, <${Id} kind="hash" value=${value.hash} />` : 'none yet'],
      ['Unspent outputs', `${grouped(value.unspent.outputs)}, in ${bytes(value.unspent.bytes)} of memory`],
      ['Waiting for a block', `${grouped(value.pool.transactions)} transactions, ${bytes(value.pool.bytes)}`],
      ['Writing', value.token_required ? 'needs the write token' : 'open to everyone who reaches the node'],
      ['Version', value.version],
    ]} /></${Panel}>
    <${Panel} title="Public keys" wide>
      <div class="list keys" role="table" aria-label="Who decides">
        <div class="row head" role="row"><span role="columnheader">Seals blocks</span><span role="columnheader">Power</span></div>
        ${value.validators.map((validator) => html`<div class="row" role="row" key=${validator.key}><span role="cell"><${Id} kind="text" value=${validator.key} whole /></span><span role="cell">${grouped(validator.power)}</span></div>`)}
      </div>
      ${value.tracker && html`<${TrackerKeys} />`}
    </${Panel}>
    <${Meters} answer=${meters} />`
}

function TrackerKeys() {
  const { value } = useAnswer('/api/v1/tracker')
  const keys = [value?.pem, ...(value?.keys ?? [])].filter((key) => typeof key === 'string')
  if (keys.length === 0) return null
  return html`<h3 class="below">Signs for the wallet tracker</h3>${[...new Set(keys)].map((key) => html`<pre class="pem" key=${key} tabindex="0">${visible(key)}</pre>`)}`
}

function Meters({ answer }) {
  const [wanted, setWanted] = useState('')
  const filter = html`<input type="search" placeholder="Filter" aria-label="Filter the meters" value=${wanted} onInput=${(event) => setWanted(event.currentTarget.value)} />`
  if (!answer.value) return html`<${Panel} title="Meters" wide><${Waiting} answer=${answer} nothing="This node shows no meters." /></${Panel}>`
  const { samples, help } = answer.value
  const needle = wanted.toLowerCase()
  const shown = samples.filter((sample) => (sample.name + sample.labels).toLowerCase().includes(needle))
  return html`<${Panel} title="Meters" wide aside=${filter}>
    ${shown.length === 0 ? html`<${Empty}>No meter of that name.</${Empty}>` : html`<div class="list meters" role="table" aria-label="Meters">
      ${shown.map((sample) => html`<div class="row" role="row" key=${sample.name + sample.labels}>
        <span role="cell" class="mono" title=${help[sample.name.replace(/_(sum|count)$/, '')] ?? ''}>${sample.name}<span class="faint">${sample.labels}</span></span>
        <span role="cell" class="amount">${number(sample.value)}</span>
      </div>`)}
    </div>`}
  </${Panel}>`
}

function number(text) {
  const value = Number(text)
  if (!Number.isFinite(value)) return text
  return Number.isInteger(value) ? grouped(value) : String(Number(value.toPrecision(5)))
}
