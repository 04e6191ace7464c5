// Ledgers that organisations share: containers, their entries and documents, who agreed, and what waits.

import { useEffect, useState } from '../vendor/hooks.js'
import { Amount, Empty, Facts, html, Id, Pager, Panel, Source, Strange, Time, Title, Waiting } from '../widgets.js'
import { grouped, visible } from '../format.js'
import { address, json, Problem, useAnswer, useData } from '../node.js'
import { to } from '../router.js'
import { useLive } from '../live.js'

const API = '/api/v1/consortium'
/** Ledgers and entries of one page; members whose names are read at once. */
const LEDGERS_SHOWN = 25
const ENTRIES_SHOWN = 10
const MEMBERS_READ = 1_000

/** Milliseconds between two looks at what waits for a person. */
const DESK_MS = 2_000

/** Who decides for a member that this node hosts: in memory, until the page is left. */
let clerk

/** Names of members by their DID. */
function useMembers() {
  const answer = useAnswer(address(`${API}/members`, { limit: MEMBERS_READ }))
  const list = answer.value?.members ?? []
  return { answer, list, names: new Map(list.map((member) => [member.did, labelOf(member)])) }
}

function labelOf(member) {
  const { label, organization } = member.card?.profile ?? member.card ?? {}
  return label || organization || member.did
}

/** A member: its name, and its DID under the pointer. */
function Member({ did, names }) {
  return html`<span title=${visible(did)}><${Strange} text=${names.get(did) ?? did} max=${60} /></span>`
}

function Members({ dids = [], names }) {
  if (dids.length === 0) return html`<span class="faint">nobody</span>`
  return html`<span class="many">${dids.map((did) => html`<${Member} key=${did} did=${did} names=${names} />`)}</span>`
}

/** How a proposal is agreed to. */
function policyText(policy, participants) {
  const count = policy?.at_least ?? policy?.atLeast
  if (count) return `${grouped(count)} of ${grouped(participants)} must agree`
  return `all ${grouped(participants)} must agree`
}

export function LedgersPage({ params }) {
  const live = useLive()
  const network = useAnswer(API, live.height)
  const ledgers = useAnswer(address(`${API}/ledgers`, { limit: LEDGERS_SHOWN, before: params.before }), live.height)
  const { answer, list, names } = useMembers()
  const title = html`<${Title}>Ledgers</${Title}>`
  if (!network.value) return html`${title}<${Waiting} answer=${network} nothing="This node serves no ledgers of a consortium." />`
  const { value } = network
  return html`${title}
    <div class="tiles">
      <div class="tile"><span>Ledgers</span><strong>${grouped(value.ledgers)}</strong></div>
      <div class="tile"><span>Members</span><strong>${grouped(value.members)}</strong></div>
      <div class="tile"><span>Proposals that wait</span><strong>${grouped(value.pending)}</strong></div>
    </div>
    <${Panel} title="Containers" wide>
      ${!ledgers.value ? html`<${Waiting} answer=${ledgers} />` : ledgers.value.ledgers.length === 0 ? html`<${Empty}>No ledger was opened yet.</${Empty}>` : html`
        <div class="list ledgers" role="table" aria-label="Ledgers">
          <div class="row head" role="row"><span role="columnheader">Name</span><span role="columnheader">Entries</span><span role="columnheader">Changed</span><span role="columnheader">Participants</span><span role="columnheader">State</span></div>
          ${ledgers.value.ledgers.map((ledger) => html`<div class="row" role="row" key=${ledger.name}>
            <span role="cell"><a href=${to(['ledgers', ledger.name])}><${Strange} text=${ledger.name} max=${60} /></a></span>
            <span role="cell"><${Amount} value=${ledger.size} /></span>
            <span role="cell" class="when"><${Time} value=${ledger.changed} /></span>
            <span role="cell"><${Members} dids=${ledger.participants} names=${names} /></span>
            <span role="cell">${ledger.pending > 0 ? html`<span class="status pending">${grouped(ledger.pending)} waiting</span>` : html`<span class="tag good">settled</span>`}</span>
          </div>`)}
        </div>
        <${Pager} first=${params.before && to(['ledgers'])} next=${ledgers.value.next !== null && ledgers.value.next !== undefined && to(['ledgers'], { before: ledgers.value.next })} />`}
    </${Panel}>
    <${Desk} />
    <${Panel} title="Members" wide>
      ${!answer.value ? html`<${Waiting} answer=${answer} />` : list.length === 0 ? html`<${Empty}>The network has no members yet. <code>consortium.members</code> names the first.</${Empty}>` : html`
        <div class="list members" role="table" aria-label="Members">
          <div class="row head" role="row"><span role="columnheader">Name</span><span role="columnheader">DID</span><span role="columnheader">Signs with</span><span role="columnheader">Ledgers</span></div>
          ${list.map((member) => html`<div class="row" role="row" key=${member.did}>
            <span role="cell"><${Strange} text=${labelOf(member)} max=${60} />${member.active === false && html` <span class="tag">not active</span>`}</span>
            <span role="cell"><${Id} kind="DID" value=${member.did} /></span>
            <span role="cell"><${Id} kind="key" value=${member.verkey} plain /></span>
            <span role="cell">${grouped(member.ledgers)}</span>
          </div>`)}
        </div>`}
    </${Panel}>`
}

export function LedgerPage({ name, params }) {
  const live = useLive()
  const path = `${API}/ledgers/${encodeURIComponent(name)}`
  const answer = useAnswer(path, live.height)
  const { names } = useMembers()
  const { value } = answer
  const size = Number(value?.size ?? 0)
  // The newest page first: its last entry is the ledger's last.
  const last = params.to === undefined ? size : Math.min(size, Math.max(1, Number(params.to) || 1))
  const from = Math.max(1, last - ENTRIES_SHOWN + 1)
  const entries = useAnswer(size > 0 ? address(`${path}/entries`, { from, limit: last - from + 1 }) : undefined, size)
  const title = html`<${Title} aside=${value && value.pending > 0 && html`<span class="status pending">${grouped(value.pending)} waiting</span>`}>Ledger</${Title}><p class="subject"><${Strange} text=${name} max=${200} /></p>`
  if (!value) return html`${title}<${Waiting} answer=${answer} nothing="There is no ledger of this name." />`
  return html`${title}
    <${Panel}><${Facts} two rows=${[
      ['Entries', html`<${Amount} value=${value.size} />`],
      ['Root', html`<${Id} kind="hash" value=${value.root_hash} />`],
      ['Opened by', html`<${Member} did=${value.creator} names=${names} />`],
      ['Opened', html`<${Time} value=${value.created} />`],
      ['Participants', html`<${Members} dids=${value.participants} names=${names} />`],
      ['Policy', policyText(value.policy, value.participants.length)],
      ['Changed', html`<${Time} value=${value.changed} />`],
      ['Export', html`<a href=${`${path}/export`} target="_blank" rel="noopener">all of it, with its proofs</a>`],
    ]} /></${Panel}>
    ${(value.proposals ?? []).map((proposal) => html`<${Proposal} key=${proposal.id ?? proposal} id=${proposal.id ?? proposal} names=${names} height=${live.height} />`)}
    <${Panel} title="Entries" wide>
      ${size === 0 ? html`<${Empty}>Nothing is agreed yet.</${Empty}>` : !entries.value ? html`<${Waiting} answer=${entries} />` : html`
        ${[...entries.value.entries].reverse().map((entry) => html`<${LedgerEntry} key=${entry.seq_no} entry=${entry} names=${names} />`)}
        <${Pager} first=${last < size && to(['ledgers', name])} next=${from > 1 && to(['ledgers', name], { to: from - 1 })} />`}
    </${Panel}>`
}

/** A proposal that waits: who agreed, and whose word is missing. */
function Proposal({ id, names, height }) {
  const answer = useAnswer(`${API}/proposals/${encodeURIComponent(id)}`, height)
  const { value } = answer
  if (!value) return html`<${Panel} title="A proposal"><${Waiting} answer=${answer} /></${Panel}>`
  return html`<${Panel} title="A proposal waits" aside=${html`<span class="status pending">${visible(String(value.status))}</span>`}><${Facts} rows=${[
    ['Proposal', html`<${Id} kind="transaction" value=${id} />`],
    ['Agreed', html`<${Members} dids=${value.endorsed} names=${names} />`],
    ['Missing', html`<${Members} dids=${value.missing} names=${names} />`],
    value.refused?.length > 0 && ['Refused', html`<${Members} dids=${value.refused} names=${names} />`],
  ]} />
    <p class="faint">A member agrees or refuses with its own gateway, which holds its key.</p>
  </${Panel}>`
}

function LedgerEntry({ entry, names }) {
  const [shown, setShown] = useState(false)
  const text = typeof entry.txn === 'string' ? entry.txn : JSON.stringify(entry.txn)
  const committed = useData(`transactions/${encodeURIComponent(entry.committed_by)}`)
  const effects = committed.value?.event?.body?.effects ?? []
  const commit = effects.find((effect) => effect.effect === 'committed')
  return html`<div class="part record">
    <${Facts} rows=${[
      ['Entry', html`<strong>${grouped(entry.seq_no)}</strong> <span class="faint"><${Time} value=${entry.time} /></span>`],
      ['Committed', html`<a href=${to(['transactions', entry.committed_by])}>${visible(String(entry.position ?? committed.value?.event?.position ?? ''))}</a> with <${Id} kind="transaction" value=${entry.committed_by} />`],
      commit && ['Proposed with', html`<${Id} kind="transaction" value=${commit.proposal} />`],
      commit && ['Agreed', html`<${Members} dids=${commit.endorsers} names=${names} />`],
      ['Documents', documents(text)],
    ]} />
    <button type="button" class="link" aria-expanded=${shown} onClick=${() => setShown(!shown)}>${shown ? 'Hide the text' : 'Show the text'}</button>
    ${shown && html`<${Source} text=${text} />`}
  </div>`
}

/** Documents that an entry names: by the names that containers give them. */
function documents(text) {
  let entry
  try {
    entry = JSON.parse(text)
  } catch {
    return undefined
  }
  const found = [entry?.documents, entry?.attachments, entry?.txn?.data?.documents].flat().filter((each) => each && typeof each === 'object')
  if (found.length === 0) return undefined
  return html`<span class="many">${found.slice(0, 20).map((each, at) => html`<${Strange} key=${at} text=${String(each.filename ?? each.name ?? each.uid ?? 'a document')} max=${60} />`)}</span>`
}

/** What waits for a person of a member that this node hosts: to be agreed to, or refused with a reason. */
function Desk() {
  const [open, setOpen] = useState(Boolean(clerk))
  const [state, setState] = useState({})
  const [tick, setTick] = useState(0)
  const ask = (path, options = {}) => json(path, { ...options, credentials: 'omit', headers: { authorization: clerk.header, ...options.headers } })
  useEffect(() => {
    if (!clerk) return undefined
    const stop = new AbortController()
    ask('/proposals/', { signal: stop.signal }).then(
      (value) => setState((before) => ({ ...before, waiting: value.results, wrong: undefined })),
      (problem) => {
        if (stop.signal.aborted) return
        if (problem.status === 401 || problem.status === 403 || problem.status === 404) clerk = undefined
        setState({ wrong: problem.status === 404 ? 'This node hosts no member. A member that runs by itself has a gateway of its own.' : problem.message })
      },
    )
    const timer = setTimeout(() => setTick(tick + 1), DESK_MS)
    return () => {
      stop.abort()
      clearTimeout(timer)
    }
  }, [tick, open, clerk])
  const enter = (event) => {
    event.preventDefault()
    const fields = new FormData(event.currentTarget)
    const pair = new TextEncoder().encode(`${fields.get('name')}:${fields.get('password')}`)
    clerk = { name: fields.get('name'), header: `Basic ${btoa(String.fromCharCode(...pair))}` }
    setState({})
    setTick(tick + 1)
  }
  const leave = () => {
    clerk = undefined
    setState({})
    setOpen(false)
  }
  const decide = async (id, what, reason) => {
    try {
      const options = { method: 'POST', body: JSON.stringify(reason ? { reason } : {}), headers: { 'content-type': 'application/json' } }
      const { decision } = await ask(`/proposals/${encodeURIComponent(id)}/${what}`, options)
      setState((before) => ({ ...before, wrong: undefined, done: { id, decision } }))
    } catch (problem) {
      const known = problem instanceof Problem && problem.status === 409 ? 'It was decided before, in the other way.' : problem.message
      setState((before) => ({ ...before, wrong: known }))
    }
    setTick((tick) => tick + 1)
  }
  if (!open) return html`<p><button type="button" class="button" id="desk" onClick=${() => setOpen(true)}>Decide for a member</button></p>`
  return html`<${Panel} title="Waits for a person" wide aside=${clerk && html`<span class="faint">as <${Strange} text=${clerk.name} max=${40} /></span> <button type="button" class="button" onClick=${leave}>Leave</button>`}>
    ${!clerk && html`<form class="submit" onSubmit=${enter}>
      <p class="faint">For users of a member that this node hosts, who may decide for it. Name and password stay in this page only, until it is closed or loaded again.</p>
      <label>User <input name="name" autocomplete="off" autocapitalize="none" required /></label>
      <label>Password <input name="password" type="password" autocomplete="off" required /></label>
      <div><button type="submit" class="button main">Show what waits</button></div>
    </form>`}
    <div role="status">
      ${state.wrong && html`<p class="problem"><${Strange} text=${String(state.wrong)} /></p>`}
      ${state.done && html`<p class="done">Proposal <${Id} kind="transaction" value=${state.done.id} /> is ${visible(String(state.done.decision))}.</p>`}
    </div>
    ${clerk && state.waiting && (state.waiting.length === 0 ? html`<${Empty}>Nothing waits.</${Empty}>` : state.waiting.map((question) => html`<${Question} key=${question.proposal} question=${question} decide=${decide} />`))}
  </${Panel}>`
}

function Question({ question, decide }) {
  const [reason, setReason] = useState('')
  const { proposal, kind, label, ledgers = [], entries = [], deadline, why } = question
  return html`<div class="part record question">
    <${Facts} rows=${[
      ['Proposal', html`<${Id} kind="transaction" value=${proposal} />`],
      ['By', label && html`<${Strange} text=${label} max=${60} />`],
      ['To', html`${visible(String(kind ?? '').replaceAll('_', ' '))} <span class="many">${ledgers.map((name) => html`<a key=${name} href=${to(['ledgers', name])}><${Strange} text=${name} max=${60} /></a>`)}</span>`],
      ['Until', deadline && html`<${Time} value=${deadline} />`],
      ['Left to a person', why && html`<${Strange} text=${String(why)} max=${200} />`],
    ]} />
    ${entries.map((entry, at) => html`<${Source} key=${at} text=${JSON.stringify(entry)} />`)}
    <form class="buy" onSubmit=${(event) => { event.preventDefault(); decide(proposal, 'refuse', reason.trim()) }}>
      <button type="button" class="button main agree" onClick=${() => decide(proposal, 'endorse')}>Agree</button>
      <label class="choice">or refuse, because <input value=${reason} onInput=${(event) => setReason(event.currentTarget.value)} required maxlength="200" /></label>
      <button type="submit" class="button refuse">Refuse</button>
    </form>
  </div>`
}
