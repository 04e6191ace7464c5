// Entries of the ledger as rows: when, what, who, where.

import { Amount, Empty, html, Id, Kind, Strange, Time } from './widgets.js'
import { grouped, visible } from './format.js'
import { to } from './router.js'

/** Owners that a row names; the entry's page has all. */
const OWNERS_SHOWN = 1

/** The keys of an owner, the first ones. */
export function Owners({ owners = [], shown = OWNERS_SHOWN }) {
  if (owners.length === 0) return html`<span class="faint">nobody</span>`
  const rest = owners.length - shown
  return html`<span class="owners">${owners.slice(0, shown).map((owner) => html`<${Id} key=${owner} kind="key" value=${owner} />`)}${rest > 0 && html`<span class="faint">and ${rest} more</span>`}</span>`
}

/** What an entry did, in a line. */
export function What({ event }) {
  if (event.long) return html`<span class="faint">too large for a list</span>`
  const { body = {} } = event
  if (event.kind.startsWith('asset.')) return html`<${AssetLine} event=${event} />`
  if (event.outline) return html`<span class="faint">shown to those whose it is</span>`
  if (event.kind.startsWith('consortium.')) return html`<${ConsortiumLine} body=${body} />`
  const [record, ...rest] = body.records ?? []
  if (!record) {
    if (body.channel) return html`<span class="what">receipt over <${Amount} value=${body.tokens} /> for <${Id} kind="object" value=${body.channel} /></span>`
    return html`<span class="faint">${event.kind === 'tracker.settings' ? 'new terms' : 'nothing moved'}</span>`
  }
  return html`<span class="what">
    ${record.amount !== '0' && html`<${Amount} value=${record.amount} />`}
    ${record.from && html`<span>from <${Id} kind="object" value=${record.from} /></span>`}
    ${record.to && html`<span>to <${Id} kind="object" value=${record.to} /></span>`}
    ${record.channel && html`<span>on <${Id} kind="object" value=${record.channel} /></span>`}
    ${rest.length > 0 && html`<span class="faint">and ${grouped(rest.length)} more</span>`}
  </span>`
}

/** What was proposed, or what an entry led to. */
function ConsortiumLine({ body }) {
  const effects = (body.effects ?? []).filter(({ effect }) => effect !== 'opened')
  const committed = effects.flatMap((effect) => effect.ledgers ?? [])
  const names = committed.length > 0 ? committed.map(({ name }) => name) : body.ledgers ?? []
  return html`<span class="what">
    ${body.do && html`<span>${visible(body.do.replaceAll('_', ' '))}</span>`}
    ${effects.map(({ effect, proposal }) => html`<span key=${proposal} class=${effect === 'committed' ? 'tag good' : 'tag'}>${visible(effect)}</span>`)}
    ${names.slice(0, OWNERS_SHOWN + 1).map((name) => html`<a key=${name} href=${to(['ledgers', name])}><${Strange} text=${name} max=${40} /></a>`)}
    ${names.length > OWNERS_SHOWN + 1 && html`<span class="faint">and ${grouped(names.length - OWNERS_SHOWN - 1)} more</span>`}
    ${body.proposal && effects.length === 0 && html`<span>of <${Id} kind="transaction" value=${body.proposal} /></span>`}
    ${body.reason && html`<span class="faint"><${Strange} text=${body.reason} max=${80} /></span>`}
  </span>`
}

function AssetLine({ event }) {
  const { inputs = [], outputs = [], asset } = event.body
  const sum = outputs.reduce((sum, output) => sum + BigInt(output.amount), 0n)
  const from = inputs[0]?.owners ?? []
  // Change that goes back to the payer is not what a payment is about.
  const others = outputs.filter((output) => !output.owners.some((owner) => from.includes(owner)))
  const paid = event.kind === 'asset.transfer' && others.length > 0 ? others : outputs
  const moved = event.kind === 'asset.transfer' ? paid.reduce((sum, output) => sum + BigInt(output.amount), 0n) : sum
  return html`<span class="what">
    <${Amount} value=${moved.toString()} />
    ${event.kind === 'asset.create' ? html`<span>of this new asset</span>` : html`<span>of <${Id} kind="asset" value=${asset} /></span>`}
    ${event.kind === 'asset.transfer' && html`<span class="from"><${Owners} owners=${from} /></span>`}
    <span class="to"><span aria-label="to">→</span> <${Owners} owners=${paid[0]?.owners} />${paid.length > 1 && html` <span class="faint">and ${paid.length - 1} more</span>`}</span>
  </span>`
}

/** A list of entries. */
export function Entries({ entries, empty = 'Nothing yet.' }) {
  if (entries.length === 0) return html`<${Empty}>${empty}</${Empty}>`
  return html`<div class="list" role="table" aria-label="Entries of the ledger">
    <div class="row head" role="row">
      <span role="columnheader">Time</span><span role="columnheader">Kind</span><span role="columnheader">Transaction</span>
      <span role="columnheader">What</span><span role="columnheader">Position</span>
    </div>
    ${entries.map((entry) => entry.more
      ? html`<div class="row gap" role="row" key=${`more ${entry.height}`}><span role="cell" class="span"><a href=${to(['blocks', String(entry.height)])}>${grouped(entry.more)} more in block ${grouped(entry.height)}</a></span></div>`
      : html`<${Row} key=${entry.position} event=${entry} />`)}
  </div>`
}

function Row({ event }) {
  const [height] = event.position.split('.')
  return html`<div class="row" role="row">
    <span role="cell" class="when"><${Time} value=${event.time} /></span>
    <span role="cell"><${Kind} kind=${event.kind} /></span>
    <span role="cell"><${Id} kind="transaction" value=${event.id} /></span>
    <span role="cell" class="wide"><${What} event=${event} /></span>
    <span role="cell" class="where"><a href=${to(['blocks', height])} title=${`Block ${height}`}>${event.position}</a></span>
  </div>`
}
