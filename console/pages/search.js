// What a text may name.

import { useEffect } from '../vendor/hooks.js'
import { Empty, html, Id, Panel, Strange, Title, Waiting } from '../widgets.js'
import { visible } from '../format.js'
import { useData } from '../node.js'
import { to } from '../router.js'

const NAMES = {
  block: 'Block',
  transaction: 'Transaction',
  asset: 'Asset',
  key: 'Public key',
  address: 'Address',
  channel: 'Channel',
  ledger: 'Ledger',
  'asset-text': 'Asset whose data says',
  'metadata-text': 'Transaction whose metadata says',
}

/** Where a hit leads. */
function target({ kind, name }) {
  switch (kind) {
    case 'block': return to(['blocks', name])
    case 'asset': return to(['assets', name])
    case 'key': return to(['keys', name])
    case 'address': case 'channel': return to(['channels', name])
    case 'ledger': return to(['ledgers', name])
    default: return to(['transactions', name])
  }
}

/** What a hit says, without the id that is told beside it. */
function said(text) {
  return text.replace(/^\{"(meta)?data":/, '').replace(/,"id":"[0-9a-f]*"?\}?$/, '')
}

/** Kinds that name one thing exactly; a transaction that made an asset is the asset's too. */
const EXACT = ['block', 'transaction', 'key', 'address', 'channel', 'ledger']

export function SearchPage({ params }) {
  const wanted = (params.q ?? '').trim()
  const answer = useData(wanted ? 'search' : undefined, { q: wanted })
  const hits = answer.value?.hits
  const [first] = hits ?? []
  const others = hits?.slice(1).filter((hit) => hit.kind !== 'asset') ?? []
  const exact = first && EXACT.includes(first.kind) && others.length === 0
  useEffect(() => {
    // In place of this page, so that going back leads to where one came from.
    if (exact) location.replace(target(first))
  }, [exact && first.name])
  return html`<${Title}>Search</${Title}>
    ${wanted && html`<p class="subject">for <strong><${Strange} text=${wanted} max=${120} /></strong></p>`}
    ${!wanted ? html`<${Empty}>Search for the id of a transaction or an asset, a public key, an address, a channel, a ledger, a block's height, a position, or words of assets and metadata.</${Empty}>`
      : !hits ? html`<${Waiting} answer=${answer} />`
      : hits.length === 0 ? html`<${Empty}>Nothing was found. Ids and keys must be whole; words are looked for in the data of assets and in metadata.</${Empty}>`
      : html`<${Panel} wide><ul class="hits">${hits.map((hit, index) => html`<li key=${index}>
          <a href=${target(hit)}>${NAMES[hit.kind] ?? hit.kind}</a>
          ${hit.kind === 'key' && !hit.known && html` <span class="faint">that no output names</span>`}
          <${Id} kind="text" value=${hit.name} />
          ${hit.text && html`<div class="quote"><${Strange} text=${said(hit.text)} max=${240} /></div>`}
        </li>`)}</ul></${Panel}>`}`
}
