// The wallet tracker: spend and income addresses, transfer channels, and what happened on them.

import { Amount, Empty, Facts, html, Id, Panel, Time, Title, Waiting } from '../widgets.js'
import { EntryPages } from './transactions.js'
import { bytes, grouped, span } from '../format.js'
import { useData } from '../node.js'
import { useLive } from '../live.js'

export function ChannelsPage({ params }) {
  const live = useLive()
  const node = useData('node', {}, live.height)
  const tracker = node.value?.tracker
  if (!node.value) return html`<${Title}>Channels</${Title}><${Waiting} answer=${node} />`
  if (!tracker) return html`<${Title}>Channels</${Title}><${Empty}>No wallet tracker is open on this node.</${Empty}>`
  return html`<${Title}>Channels</${Title}>
    <div class="tiles">
      <div class="tile"><span>Open addresses</span><strong>${grouped(tracker.addresses)}</strong></div>
      <div class="tile"><span>Open channels</span><strong>${grouped(tracker.channels)}</strong></div>
      <div class="tile"><span>In the wallet</span><strong><${Amount} value=${tracker.balance} /></strong></div>
      <div class="tile"><span>Records</span><strong>${grouped(tracker.records)}</strong></div>
    </div>
    <${Panel} title="Terms"><${Facts} two rows=${[
      ['Wallet', html`<${Id} kind="object" value=${tracker.wallet} />`],
      ['Token', html`<${Id} kind="asset" value=${tracker.token} />`],
      ['Backed by', html`<${Amount} value=${tracker.held} /> units held by <${Id} kind="key" value=${tracker.holder} />`],
      ['A spend address gets', html`<${Amount} value=${tracker.spend_grant} /> and lives ${span(tracker.lifetimes.spend)}`],
      ['An income address', html`lives ${span(tracker.lifetimes.income)}`],
      ['A channel', html`lives ${span(tracker.lifetimes.transfer)} at most`],
      ['Price', html`<${Amount} value=${tracker.income_price_min} />${tracker.income_price_min !== tracker.spend_price_max && html` to <${Amount} value=${tracker.spend_price_max} />`} for ${bytes(2 ** tracker.quantum_power)}`],
    ]} /></${Panel}>
    <${Panel} title="What happened" wide>
      <${EntryPages} key=${params.before} question=${{ kind: 'tracker' }} base=${['channels']} params=${{}} before=${params.before} empty="Nothing happened on the tracker yet." />
    </${Panel}>`
}

const KINDS = { common: 'Wallet address', spend: 'Spend address', income: 'Income address', channel: 'Transfer channel' }

export function ObjectPage({ name, params }) {
  const live = useLive()
  const answer = useData('object', { name }, live.height)
  const { value } = answer
  const title = html`<${Title} aside=${value && html`<${State} value=${value} />`}>${KINDS[value?.kind] ?? 'Tracker'}</${Title}><p class="subject"><${Id} kind="object" value=${name} whole plain /></p>`
  if (!value) return html`${title}<${Waiting} answer=${answer} nothing="The tracker never heard of it." />`
  return html`${title}
    ${value.kind === 'channel' ? html`<${Channel} value=${value} />` : html`<${Address} value=${value} />`}
    <${Panel} title="What happened" wide>
      <${EntryPages} key=${params.before} question=${{ object: name }} base=${['channels', name]} params=${{}} before=${params.before} empty="Nothing that was recorded." />
    </${Panel}>`
}

function State({ value }) {
  if (value.kind === 'common') return null
  const open = value.kind === 'channel' ? value.open : value.state !== null
  return html`<span class=${open ? 'status committed' : 'status'}>${open ? 'open' : 'not open'}</span>`
}

function Address({ value }) {
  const { state, kind } = value
  if (!state) return html`<${Panel}><${Empty}>It is not open: closed, past its lock, or never opened. What was recorded of it stands below.</${Empty}></${Panel}>`
  if (kind === 'common') {
    return html`<${Panel}><${Facts} rows=${[
      ['Earned', html`<${Amount} value=${state.fact} />`],
      ['Could still earn', html`<${Amount} value=${state.plan} />`],
      ['Paid out', html`<${Amount} value=${state.profit} />`],
    ]} /></${Panel}>`
  }
  return html`<${Panel}><${Facts} rows=${[
    ['Tokens', html`<${Amount} value=${state.amount} />`],
    [kind === 'spend' ? 'Free to promise' : 'With open channels', html`<${Amount} value=${state.limit} />`],
    ['Price', html`<${Amount} value=${state.price} /> for ${bytes(2 ** state.quantum_power)}`],
    ['Paid for', bytes(state.paid_bytes)],
    ['Moved', bytes(state.volume)],
    ['Locked until', html`<${Time} value=${state.lock} />`],
    ['Open channels', state.channels.length > 0 ? html`<span class="many">${state.channels.map((channel) => html`<${Id} key=${channel} kind="object" value=${channel} />`)}</span>` : 'none'],
  ]} /></${Panel}>`
}

function Channel({ value }) {
  return html`<${Panel}><${Facts} rows=${[
    ['Pays from', value.from && html`<${Id} kind="object" value=${value.from} />`],
    ['Pays to', value.to && html`<${Id} kind="object" value=${value.to} />`],
    ['Limit', value.limit && html`<${Amount} value=${value.limit} />`],
    ['Price', value.price && html`<${Amount} value=${value.price} /> for ${bytes(2 ** value.quantum_power)}, at most ${grouped(value.planned)} times`],
    ['Opened', value.opened && html`<${Time} value=${value.opened} />`],
    ['Locked until', value.lock && html`<${Time} value=${value.lock} />`],
    ['Receipt on deposit', value.parked && html`<${Amount} value=${value.parked.tokens} />`],
    ['Settled', value.settled && html`<span><${Amount} value=${value.settled.tokens} /> for ${bytes(value.settled.volume)}</span>`],
    ['Closed by', value.cause],
  ]} /></${Panel}>`
}
