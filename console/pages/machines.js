// Machines: what each is doing, what was paid from whom to whom, and ordering from here.

import { useEffect, useState } from '../vendor/hooks.js'
import { Amount, Empty, html, Id, Panel, Strange, Time, Title, Waiting } from '../widgets.js'
import { grouped, short, visible } from '../format.js'
import { reason, useFleet } from '../fleet.js'
import { authorization, json, secret, useAnswer, useData } from '../node.js'
import { ensure } from '../sending.js'
import { kept, made, missing, transfer } from '../wallet.js'
import { useLive } from '../live.js'

/** Payments that are drawn. */
const FLOWS_MAX = 8
/** Statuses of a machine that its card lists. */
const TOLD_SHOWN = 6
/** The most that one click pays, in units: no machine's price is believed beyond it without a second look. */
const ASK_ABOVE = 100
/** The tag that transfers of the field carry. */
const TAG = 'AKITA9MACHINE'

const STATUSES = {
  not_connected: 'bad', booting: '', waiting_for_order: 'idle', waiting_for_tx: 'waiting',
  waiting_for_tx_confirm: 'waiting', payout_provider: 'paying', working: 'working',
}

export function MachinesPage() {
  const { answer, machines } = useFleet()
  const [own, setOwn] = useState()
  useEffect(() => {
    if (!missing()) kept().then(setOwn, () => {})
  }, [])
  const title = html`<${Title}>Machines</${Title}>`
  if (!machines) return html`${title}<${Waiting} answer=${answer} />`
  if (machines.length === 0) {
    return html`${title}<${Panel}><${Empty}>No machine says that it uses this node. Start one with <code>daybook machine</code>; it shows itself here within seconds.</${Empty}></${Panel}>`
  }
  return html`${title}
    ${machines.some((machine) => machine.blocked) && html`<p class="problem" role="alert">A machine came after this page was loaded, and the page may talk only to those that it knew. <button type="button" class="button" onClick=${() => location.reload()}>Load the page again</button></p>`}
    <${Wallet} own=${own} made=${setOwn} machines=${machines} />
    <div class="machines">${machines.map((machine) => html`<${Card} key=${machine.url} machine=${machine} own=${own} />`)}</div>
    <${Panel} title="Payments" wide><${Flows} machines=${machines} own=${own} /></${Panel}>`
}

function Wallet({ own, made: setOwn, machines }) {
  const live = useLive()
  const without = missing()
  const faucet = useAnswer('/send_tokens')
  const node = useData('node')
  const held = useData(own && `keys/${own.key}`, {}, live.height)
  const [state, setState] = useState({})
  const token = faucet.value?.asset_id ?? machines.find((machine) => machine.asset)?.asset
  const holding = held.value?.holdings.find((each) => each.asset === token)
  const make = async () => {
    setState({ busy: true })
    try {
      setOwn(await made())
      setState({})
    } catch (error) {
      setState({ wrong: `No wallet could be made: ${error.message}` })
    }
  }
  const fill = async () => {
    setState({ busy: true })
    try {
      const given = await json(`/send_tokens?address=${own.key}`, { method: 'POST', headers: authorization() })
      setState(given.status === 'ok' ? { done: given } : { wrong: given.message })
    } catch (problem) {
      setState({ wrong: problem.message })
    }
  }
  return html`<${Panel} title="Your wallet" aside=${own && html`<${Id} kind="key" value=${own.key} />`}>
    ${without ? html`<p class="faint">${without} You can order with <code>daybook order</code>.</p>` : html`
    <div class="wallet">
      ${own ? html`<p>It holds <strong id="wallet-balance"><${Amount} value=${holding?.amount ?? '0'} /></strong>${token && html` of <${Id} kind="asset" value=${token} />`}</p>`
        : html`<p>A key in this browser that pays for what you order. No script can read it, and it is gone when you clear the browser’s data.</p>`}
      <div class="steps">
        ${!own && html`<button type="button" class="button main" id="make-wallet" disabled=${state.busy} onClick=${make}>Make a wallet</button>`}
        ${own && faucet.value && html`<button type="button" class="button" id="get-tokens" disabled=${state.busy} onClick=${fill}>Get ${grouped(faucet.value.units)} tokens</button>`}
      </div>
    </div>
    ${node.value?.token_required && html`<${Token} />`}
    <div role="status">
      ${state.wrong && html`<p class="problem"><${Strange} text=${String(state.wrong)} /></p>`}
      ${state.done && html`<p class="done"><${Amount} value=${state.done.units} /> came with <${Id} kind="transaction" value=${state.done.transaction_id} /></p>`}
    </div>`}
  </${Panel}>`
}

function Token() {
  const [value, setValue] = useState(secret.token)
  const change = (event) => {
    secret.token = event.currentTarget.value.trim()
    setValue(event.currentTarget.value)
  }
  return html`<div class="submit"><label>Write token of the node
    <input type="password" autocomplete="off" value=${value} onInput=${change} />
    <span class="faint">Kept in this page only, until it is closed or loaded again.</span>
  </label></div>`
}

function Plate({ status }) {
  return html`<span class=${`plate ${STATUSES[status] ?? ''}`}>${visible(status.replaceAll('_', ' '))}</span>`
}

function Card({ machine, own }) {
  const { name, role, url, status, message, balance, told, orders } = machine
  return html`<section class="panel machine" aria-label=${visible(name)}>
    <header><h2><a href=${url} target="_blank" rel="noopener noreferrer"><${Strange} text=${name} max=${40} /></a> <small><${Strange} text=${role} max=${20} /></small></h2><${Plate} status=${status} /></header>
    <div class="holds"><strong>${typeof balance === 'number' ? html`<${Amount} value=${balance} />` : '–'}</strong><span class="faint">${status === 'not_connected' ? 'No connection; it is tried again' : html`<${Strange} text=${String(message ?? '')} max=${120} />`}</span></div>
    <${Buy} machine=${machine} own=${own} />
    ${told.length > 0 && html`<ol class="told" aria-label="What it said">${changes(told).slice(0, TOLD_SHOWN).map((each) => html`<li key=${each.seq}><${Time} value=${Date.parse(each.at)} /> <span>${visible(each.status.replaceAll('_', ' '))}</span></li>`)}</ol>`}
    <p class="faint">${orders.length === 0 ? 'No orders yet' : html`${orders.length === 20 ? 'The last 20 orders' : `${orders.length} ${orders.length === 1 ? 'order' : 'orders'}`}: ${counts(orders)}`}</p>
    ${machine.problem && html`<p class="problem">${visible(reason(machine.problem))}</p>`}
  </section>`
}

/** What was said, the newest first, without saying the same state twice in a row. */
function changes(told) {
  return told.filter((each, at) => each.status !== told[at + 1]?.status)
}

function counts(orders) {
  const stages = {}
  for (const { stage } of orders) stages[stage] = (stages[stage] ?? 0) + 1
  return Object.entries(stages).map(([stage, count]) => `${grouped(count)} ${visible(String(stage))}`).join(', ')
}

const PAYING = {
  ordering: 'Ordering…', asking: undefined, signing: 'Signing…', paying: 'Waiting for the block of the payment…', lost: 'The answer was lost. Looking for what became of it…',
}

function Buy({ machine, own }) {
  const products = machine.info?.products ?? []
  const [product, setProduct] = useState()
  const [state, setState] = useState({})
  const chosen = products.find((each) => each.name === product) ?? products[0]
  const price = chosen?.value ?? machine.value
  const open = machine.status !== 'not_connected' && machine.status !== 'booting' && price !== undefined
  const busy = Boolean(state.step)

  const order = async (event) => {
    event.preventDefault()
    try {
      setState({ step: 'ordering' })
      // A machine may name another token at any time; what it named at the click is what was agreed to.
      const { asset } = machine
      const wanted = { ...(chosen ? { product: chosen.name } : {}), refund_key: own.key, client_ref: 'console' }
      const ordered = { ...(await machine.order(wanted)), asset: machine.asset }
      const value = ordered.value
      if (!Number.isSafeInteger(value) || value < 0) throw new Error('The machine named no price.')
      if (value > price || value > ASK_ABOVE || ordered.asset !== asset) setState({ step: 'asking', ordered })
      else await pay(ordered)
    } catch (problem) {
      setState({ wrong: reason(problem) })
    }
  }
  const pay = async (ordered) => {
    try {
      setState({ step: 'signing' })
      const metadata = { address: ordered.address, kind: 'payment', order_id: ordered.uuid, tag: TAG }
      // A machine without a price keeps one unit: an output holds that at least.
      const payment = await transfer(own, ordered.asset, ordered.public_key, Math.max(1, ordered.value), metadata)
      setState({ step: 'paying' })
      try {
        // The machine learns of it before it is final, and sends it on.
        await machine.announce(ordered.uuid, payment.text)
        await machine.sees(ordered.uuid, payment.id)
      } catch {
        // That it cannot be told is no reason not to pay: it sees the transfer on the ledger.
      }
      setState(await ensure(payment, () => setState({ step: 'lost' })))
    } catch (problem) {
      setState({ wrong: reason(problem) })
    }
  }
  return html`<form class="buy" onSubmit=${order}>
    ${products.length > 1 && html`<label class="choice">Product <select value=${chosen.name} onChange=${(event) => setProduct(event.currentTarget.value)}>${products.map((each) => html`<option key=${each.name} value=${each.name}>${visible(each.name)}</option>`)}</select></label>`}
    <button type="submit" class="button main order" disabled=${!own || !open || busy} title=${own ? '' : 'Make a wallet first'}>Order ${products.length === 1 ? visible(short(products[0].name, 24, 4)) : ''} for ${price === undefined ? '…' : grouped(price)}</button>
    <div role="status">
      ${PAYING[state.step] && html`<p aria-busy="true">${PAYING[state.step]}</p>`}
      ${state.step === 'asking' && html`<p class="ask">It asks for <${Amount} value=${state.ordered.value} /> of <${Id} kind="asset" value=${state.ordered.asset} />. <button type="button" class="button" onClick=${() => pay(state.ordered)}>Pay it</button> <button type="button" class="button" onClick=${() => setState({})}>Leave it</button></p>`}
      ${state.wrong && html`<p class="problem"><${Strange} text=${String(state.wrong)} /></p>`}
      ${state.unknown && html`<p class="problem">It is not known what became of the payment. Look for <${Id} kind="transaction" value=${state.unknown} /> before you pay again.</p>`}
      ${state.id && html`<p class="done">Paid with <${Id} kind="transaction" value=${state.id} /></p>`}
    </div>
  </form>`
}

/** Orders as what moved for them: from a customer to a machine, and on to its provider. */
function Flows({ machines, own }) {
  const all = machines.flatMap((machine) => machine.orders.map((order) => ({ machine, order })))
  // What a machine ordered at its provider is drawn with the machine's own order.
  const supplied = new Set(all.map(({ order }) => order.provider_order?.order_id).filter(Boolean))
  const drawn = all.filter(({ order }) => !supplied.has(order.uuid))
    .sort((one, other) => String(other.order.created).localeCompare(String(one.order.created)))
    .slice(0, FLOWS_MAX)
  if (drawn.length === 0) return html`<${Empty}>Nothing was ordered yet. Payments appear here, from the customer to the machine and on to its provider.</${Empty}>`
  return html`<ol class="flows">${drawn.map((each) => html`<${Flow} key=${each.order.uuid} ...${each} machines=${machines} own=${own} />`)}</ol>`
}

function Flow({ machine, order, machines, own }) {
  const payments = order.payments ?? []
  const supply = order.provider_order
  const supplier = machine.limits?.provider
  const provider = supplier && machines.find((each) => each.url === supplier)
  const payer = payments[0]?.payer
  const first = payments.length === 0 ? 'awaited' : payments.every((payment) => payment.committed) ? 'paid' : 'pending'
  const second = !supply ? 'awaited' : supply.step === 'paid' ? 'paid' : supply.step === 'failed' ? 'failed' : 'pending'
  return html`<li class="money" data-stage=${order.stage}>
    <div class="stop"><span class="faint">Customer</span>${payer === own?.key && payer ? html`<strong>You</strong>` : payer ? html`<${Id} kind="key" value=${payer} />` : html`<span>–</span>`}<small><${Time} value=${Date.parse(order.created)} /></small></div>
    <${Hop} state=${first} amount=${order.received || order.value} ids=${payments.map((payment) => payment.transaction_id)} />
    <div class="stop"><span class="faint"><${Strange} text=${machine.role} max=${20} /></span><strong><${Strange} text=${machine.name} max=${40} /></strong><small>${order.product && html`<${Strange} text=${order.product} max=${30} />, `}<span class="stage" data-stage=${order.stage}>${visible(String(order.stage))}</span></small></div>
    ${supplier ? html`<${Hop} state=${second} amount=${supply?.value} ids=${supply?.transaction_id ? [supply.transaction_id] : []} />
    <div class="stop"><span class="faint">provider</span><strong>${provider ? html`<${Strange} text=${provider.name} max=${40} />` : html`<${Strange} text=${supplier} max=${40} />`}</strong></div>` : html`<span></span><span></span>`}
  </li>`
}

const HOPS = { awaited: 'not paid yet', pending: 'on its way', paid: 'paid', failed: 'failed' }

function Hop({ state, amount, ids }) {
  return html`<div class=${`hop ${state}`}>
    <span>${amount === undefined || amount === null ? '' : html`<${Amount} value=${amount} /> `}<span class="faint">${HOPS[state]}</span></span>
    <svg viewBox="0 0 120 12" preserveAspectRatio="none" aria-hidden="true"><path d="M0 6h112" /><path class="head" d="M106 1l8 5-8 5" /></svg>
    ${state === 'pending' && html`<i class="coin" aria-hidden="true"></i>`}
    <span>${ids.slice(0, 2).map((id) => html`<${Id} key=${id} kind="transaction" value=${id} />`)}</span>
  </div>`
}
