// One public key: what it holds and what it ever received.

import { Amount, Empty, html, Id, Pager, Panel, Time, Title, Waiting } from '../widgets.js'
import { grouped } from '../format.js'
import { useData } from '../node.js'
import { to } from '../router.js'

export function KeyPage({ id, params }) {
  const held = useData(`keys/${encodeURIComponent(id)}`)
  const outputs = useData('outputs', { key: id, before: params.before })
  const { value } = held
  const title = html`<${Title}>Key</${Title}><p class="subject"><${Id} kind="key" value=${id} whole plain /></p>`
  if (outputs.problem?.status === 400 || held.problem?.status === 404) return html`${title}<${Empty}>This is no public key.</${Empty}>`
  return html`${title}
    <${Panel} title="Holds" wide>
      ${!value ? html`<${Waiting} answer=${held} />` : value.holdings.length === 0 ? html`<${Empty}>Nothing${value.complete ? '' : ' that was found yet'}.</${Empty}>` : html`
        <div class="list holdings" role="table" aria-label="Holdings">
          <div class="row head" role="row"><span role="columnheader">Asset</span><span role="columnheader">Amount</span><span role="columnheader">Outputs</span></div>
          ${value.holdings.map((holding) => html`<div class="row" role="row" key=${holding.asset}>
            <span role="cell"><${Id} kind="asset" value=${holding.asset} /></span>
            <span role="cell">${value.complete ? '' : 'at least '}<${Amount} value=${holding.amount} /></span>
            <span role="cell">${grouped(holding.outputs)}</span>
          </div>`)}
        </div>`}
      ${value && !value.complete && html`<p class="faint">Counted over its newest ${grouped(value.transactions)} transactions only: this key has more.</p>`}
    </${Panel}>
    <${Panel} title="Received" wide>
      ${outputs.value ? html`<${Outputs} value=${outputs.value} /><${Pager} first=${params.before && to(['keys', id])} next=${outputs.value.next && to(['keys', id], { before: outputs.value.next })} />` : html`<${Waiting} answer=${outputs} />`}
    </${Panel}>`
}

function Outputs({ value }) {
  if (value.outputs.length === 0) return html`<${Empty}>No output ever named this key.</${Empty}>`
  return html`<div class="list outputs" role="table" aria-label="Outputs">
    <div class="row head" role="row"><span role="columnheader">Time</span><span role="columnheader">Amount</span><span role="columnheader">Asset</span><span role="columnheader">Transaction</span><span role="columnheader">State</span></div>
    ${value.outputs.map((output) => html`<div class="row" role="row" key=${`${output.transaction}:${output.index}`}>
      <span role="cell" class="when"><${Time} value=${output.time} /></span>
      <span role="cell"><${Amount} value=${output.amount} />${output.keys > 1 && html` <span class="tag" title="Others have keys to it too">shared</span>`}</span>
      <span role="cell"><${Id} kind="asset" value=${output.asset} /></span>
      <span role="cell"><${Id} kind="transaction" value=${output.transaction} /></span>
      <span role="cell"><span class=${output.spent ? 'tag' : 'tag good'}>${output.spent ? 'spent' : 'unspent'}</span></span>
    </div>`)}
  </div>`
}
