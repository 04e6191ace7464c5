// One asset: what it is, how much there is of it, and its history.

import { Amount, Facts, html, Id, Panel, Time, Title, Waiting } from '../widgets.js'
import { Owners } from '../entries.js'
import { EntryPages } from './transactions.js'
import { dataOf, Values } from './transaction.js'
import { text, useAnswer, useData } from '../node.js'

export function AssetPage({ id, params }) {
  const made = useData(`transactions/${encodeURIComponent(id)}`)
  const source = useAnswer(made.value?.status === 'committed' ? `/api/v1/transactions/${id}` : undefined, 0, text)
  const { value } = made
  const title = html`<${Title}>Asset</${Title}><p class="subject"><${Id} kind="asset" value=${id} whole plain /></p>`
  const makes = ['asset.create', 'asset.compose', 'asset.decompose'].includes(value?.event?.kind)
  if (!value || value.status !== 'committed' || !makes) {
    return html`${title}<${Waiting} answer=${value ? { problem: { status: 404 } } : made} nothing="No asset has this id." />`
  }
  const issuers = [...new Set(value.inputs.flatMap((input) => input.owners))]
  const whole = value.outputs.length === value.outputs_count
  const supply = value.outputs.reduce((sum, output) => sum + BigInt(output.amount), 0n).toString()
  const { assets } = source.value ? dataOf(source.value) : { assets: [] }
  return html`${title}
    <${Panel}><${Facts} rows=${[
      ['Created', html`<${Time} value=${value.block.time} /> by <${Id} kind="transaction" value=${id} />`],
      ['Issued by', html`<${Owners} owners=${issuers} shown=${4} />`],
      ['Amount', html`${whole ? '' : 'at least '}<${Amount} value=${supply} />`],
      ['Data', assets.length > 0 ? html`<${Values} value=${assets[0]} />` : undefined],
    ]} /></${Panel}>
    <${Panel} title="History" wide>
      <${EntryPages} key=${params.before} question=${{ asset: id }} base=${['assets', id]} params=${{}} before=${params.before} empty="Nothing moved it yet." />
    </${Panel}>`
}
