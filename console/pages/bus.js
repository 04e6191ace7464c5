// The service bus: who is online, how much is called, what waits, and what nobody could do.

import { Empty, Facts, html, Id, Panel, Strange, Time, Title, Waiting } from '../widgets.js'
import { grouped, measure, short, visible } from '../format.js'
import { usePolled } from '../node.js'

/** Milliseconds between two looks. */
const LOOK_MS = 2_000

export function BusPage() {
  const answer = usePolled('/console/data/bus', LOOK_MS)
  const { value } = answer
  if (!value) return html`<${Title}>Bus</${Title}><${Waiting} answer=${answer} nothing="No service bus runs beside this node." />`
  const { totals } = value
  const refused = Object.entries(totals.refused)
  return html`<${Title}>Bus</${Title}>
    ${answer.problem && html`<p class="problem" role="alert">${visible(answer.problem.message)}</p>`}
    <div class="tiles">
      <div class="tile"><span>Services online</span><strong id="online">${grouped(value.online)}</strong></div>
      <div class="tile"><span>Calls per second</span><strong>${measure(value.calls_per_second)}</strong></div>
      <div class="tile"><span>Open calls</span><strong>${grouped(value.open_calls)}</strong></div>
      <div class="tile"><span>Waiting</span><strong>${grouped(value.waiting)}</strong></div>
      <div class="tile"><span>Dead letters</span><strong class=${value.dead_letters > 0 ? 'bad' : ''}>${grouped(value.dead_letters)}</strong></div>
    </div>
    <${Panel} title="Services" wide><${Services} services=${value.services} online=${value.online} /></${Panel}>
    ${value.queues.length > 0 && html`<${Panel} title="Waiting in queues" wide><div class="list pairs" role="table" aria-label="Queues">
      ${value.queues.map((each) => html`<div class="row" role="row" key=${each.queue}><span role="cell"><${Strange} text=${each.queue} /></span><span role="cell">${grouped(each.waiting)}</span></div>`)}
    </div></${Panel}>`}
    <${Panel} title="Durable subscriptions" wide>
      ${value.durable.length === 0 ? html`<${Empty}>Nobody subscribes durably: messages that nobody hears are not kept.</${Empty}>` : html`<div class="list durables" role="table" aria-label="Durable subscriptions">
        <div class="row head" role="row"><span role="columnheader">Name</span><span role="columnheader">Whose</span><span role="columnheader">Connected</span><span role="columnheader">Waiting</span></div>
        ${value.durable.map((each) => html`<div class="row" role="row" key=${`${each.owner} ${each.name} ${each.queue}`}>
          <span role="cell"><${Strange} text=${each.name} /></span><span role="cell"><${Strange} text=${each.queue || each.owner || ''} /></span>
          <span role="cell">${grouped(each.members)}</span><span role="cell">${grouped(each.waiting)}</span>
        </div>`)}
      </div>`}
    </${Panel}>
    <${Panel} title="Dead letters" wide>
      ${value.dead.length === 0 ? html`<${Empty}>None: every durable message was delivered, or waits.</${Empty}>` : html`<div class="list durables" role="table" aria-label="Dead letters">
        <div class="row head" role="row"><span role="columnheader">Name</span><span role="columnheader">Newest</span><span role="columnheader">Attempts</span><span role="columnheader">Letters</span></div>
        ${value.dead.map((each) => html`<div class="row" role="row" key=${each.name}>
          <span role="cell"><${Strange} text=${each.name} /></span>
          <span role="cell"><${Time} value=${each.newest.at} /> <span class="faint"><${Strange} text=${String(each.newest.error ?? '')} max=${80} /></span></span>
          <span role="cell">${grouped(each.newest.attempts)}</span><span role="cell">${grouped(each.count)}</span>
        </div>`)}
      </div>`}
    </${Panel}>
    <${Panel} title="Since the start"><${Facts} two rows=${[
      ['Requests', grouped(totals.requests)],
      ['Repeated', grouped(totals.repeated)],
      ['Deliveries', grouped(totals.deliveries)],
      ['Delivered again', grouped(totals.redeliveries)],
      ['Responses', grouped(totals.responses)],
      ['Too late', grouped(totals.late)],
      ['Answers to nobody', grouped(totals.orphans)],
      ['Dropped', grouped(totals.dropped)],
      ['Refused', refused.length === 0 ? 'none' : refused.map(([code, count]) => `${grouped(count)} ${code}`).join(', ')],
    ]} /></${Panel}>`
}

function Services({ services, online }) {
  if (services.length === 0) return html`<${Empty}>No service is connected.</${Empty}>`
  return html`<div class="list services" role="table" aria-label="Services">
    <div class="row head" role="row"><span role="columnheader">Instance</span><span role="columnheader">Answers to</span></div>
    ${services.map((service) => html`<div class="row" role="row" key=${service.id}>
      <span role="cell"><${Id} kind="id" value=${String(service.id)} label=${short(String(service.id), 22, 6)} /></span>
      <span role="cell" class="many">${(service.subscribed_events ?? []).map((name) => html`<span class="tag" key=${name}><${Strange} text=${String(name)} max=${60} /></span>`)}</span>
    </div>`)}
    ${online > services.length && html`<div class="row gap" role="row"><span role="cell" class="span">and ${grouped(online - services.length)} more</span></div>`}
  </div>`
}
