// One transaction: who signed, what it moved, where that came from and where it went, and its text.

import { useEffect, useMemo, useState } from '../vendor/hooks.js'
import { Amount, Copy, Facts, html, Id, Kind, Panel, Source, Strange, Time, Title, Waiting } from '../widgets.js'
import { Owners, What } from '../entries.js'
import { bytes, grouped, short, visible } from '../format.js'
import { data, text, useAnswer, useData } from '../node.js'
import { to } from '../router.js'

/** Milliseconds until one asks again for a transaction that waits for its block. */
const PENDING_MS = 1_000

/** Keys of an input or output that are shown. */
const OWNERS_SHOWN = 4

export function TransactionPage({ id }) {
  const [again, setAgain] = useState(0)
  const answer = useData(`transactions/${encodeURIComponent(id)}`, {}, again)
  const { value } = answer
  useEffect(() => {
    if (value?.status !== 'pending') return undefined
    const timer = setTimeout(() => setAgain(again + 1), PENDING_MS)
    return () => clearTimeout(timer)
  }, [value, again])
  const title = html`<${Title} aside=${value && html`<span class=${`status ${value.status}`}>${value.status}</span>`}>Transaction</${Title}>
    <p class="subject"><${Id} kind="transaction" value=${id} whole plain /></p>`
  if (!value) return html`${title}<${Waiting} answer=${answer} nothing="The node knows no transaction with this id: it was never submitted here, or never became durable." />`
  if (value.status === 'pending') return html`${title}<${Panel}><p class="empty" role="status">It is sound and waits for its block. This page follows it.</p></${Panel}>`
  if (value.status === 'rejected') return html`${title}<${Rejected} value=${value} />`
  return html`${title}<${Committed} id=${id} value=${value} />`
}

function Rejected({ value }) {
  return html`<${Panel}><${Facts} rows=${[
    ['Refused', html`<strong class="bad">${value.class}</strong>`],
    ['Because', html`<${Strange} text=${value.message} max=${2_000} />`],
    ['Recorded beside block', html`<a href=${to(['blocks', String(value.height)])}>${grouped(value.height)}</a>`],
  ]} /></${Panel}>`
}

function Committed({ id, value }) {
  const { event, block } = value
  const isAsset = event.kind.startsWith('asset.')
  const asset = event.body?.asset ?? (event.kind === 'asset.create' || event.kind === 'asset.compose' ? id : undefined)
  const signers = [...new Set((value.inputs ?? []).flatMap((input) => input.owners))]
  return html`
    <${Panel}>
      <${Facts} two rows=${[
        ['Kind', html`<${Kind} kind=${event.kind} />`],
        ['Position', html`<a href=${to(['blocks', String(block.height)])}>${event.position}</a><span class="faint">, ${block.count === 1 ? 'the only entry' : `one of ${grouped(block.count)} entries`} of block ${grouped(block.height)}</span>`],
        ['Committed', html`<${Time} value=${block.time} />`],
        ['Block', html`<${Id} kind="hash" value=${block.hash} />`],
        isAsset && asset && ['Asset', html`<${Id} kind="asset" value=${asset} />`],
        isAsset && ['Signed by', html`<${Owners} owners=${signers} shown=${OWNERS_SHOWN} />`],
        isAsset && ['Version', value.version],
        isAsset && ['Size', bytes(value.bytes)],
        event.body?.transaction && ['Moved by', html`<${Id} kind="transaction" value=${event.body.transaction} />`],
      ]} />
    </${Panel}>
    ${isAsset ? html`<${Flow} id=${id} value=${value} /><${Text} id=${id} />` : event.kind.startsWith('consortium.') ? html`<${Panel} title="What it did" wide><p class="part"><${What} event=${event} /></p><${Source} text=${JSON.stringify(event)} /></${Panel}>` : html`<${Records} value=${value} />`}`
}

/** Where units came from and where they went, as a drawing that turns into a list on a phone. */
function Flow({ id, value }) {
  const { inputs, outputs } = value
  const spenders = useSpenders(id, outputs)
  const hidden = (count, shown) => count > shown && html`<p class="faint">and ${grouped(count - shown)} more in its text</p>`
  const creates = value.event.kind === 'asset.create'
  return html`<${Panel} title="What moved" wide>
    <div class="flow">
      <div class="side">
        <h3>${creates ? 'Issued by' : `From ${grouped(value.inputs_count)} ${value.inputs_count === 1 ? 'output' : 'outputs'}`}</h3>
        ${inputs.map((input, index) => html`<div class="part" key=${index}>
          ${input.amount !== undefined && html`<div><${Amount} value=${input.amount} /></div>`}
          <div><${Owners} owners=${input.owners} shown=${OWNERS_SHOWN} /></div>
          ${input.transaction && html`<div class="trace">came from <${Id} kind="transaction" value=${input.transaction} label=${`${short(input.transaction)} : ${input.index}`} /></div>`}
        </div>`)}
        ${hidden(value.inputs_count, inputs.length)}
      </div>
      <div class="arrow" aria-hidden="true"><svg viewBox="0 0 40 24"><path d="M2 12h34M28 4l8 8-8 8" /></svg></div>
      <div class="side">
        <h3>To ${grouped(value.outputs_count)} ${value.outputs_count === 1 ? 'output' : 'outputs'}</h3>
        ${outputs.map((output, index) => html`<div class="part" key=${index}>
          <div><${Amount} value=${output.amount} /> <span class=${output.spent ? 'tag' : 'tag good'}>${output.spent ? 'spent' : 'unspent'}</span></div>
          <div><${Owners} owners=${output.owners} shown=${OWNERS_SHOWN} /></div>
          ${output.spent && html`<${Went} spender=${spenders.found.get(index)} state=${spenders} />`}
        </div>`)}
        ${hidden(value.outputs_count, outputs.length)}
      </div>
    </div>
  </${Panel}>`
}

function Went({ spender, state }) {
  if (spender) return html`<div class="trace">went on in <${Id} kind="transaction" value=${spender.id} /></div>`
  if (state.looking) return html`<div class="trace faint" aria-busy="true">looking for where it went…</div>`
  if (state.next) return html`<div class="trace faint">not among the transactions up to ${state.next}. <button type="button" class="link" onClick=${state.goOn}>Look on</button></div>`
  return html`<div class="trace faint">${state.problem ? 'could not be looked up' : 'went on'}</div>`
}

/** Answers that are asked for one after the other before the reader is asked. */
const SPENDER_ANSWERS = 4

/** Who spent the outputs. A long history is looked through piece by piece. */
function useSpenders(id, outputs) {
  const [state, setState] = useState({ found: new Map(), looking: true })
  const [round, setRound] = useState(0)
  const wanted = outputs.some((output) => output.spent)
  useEffect(() => {
    const stop = new AbortController()
    const look = async () => {
      let next = round ? state.next : undefined
      const found = new Map(round ? state.found : [])
      for (let count = 0; count < SPENDER_ANSWERS; count += 1) {
        const piece = await data(`spenders/${id}`, { after: next }, { signal: stop.signal })
        for (const spender of piece.spenders) found.set(spender.index, spender)
        next = piece.next
        if (!next) break
      }
      if (!stop.signal.aborted) setState({ found, next })
    }
    if (wanted) {
      setState((before) => ({ ...before, looking: true }))
      look().catch((problem) => !stop.signal.aborted && setState({ found: new Map(), problem }))
    }
    return () => stop.abort()
  }, [id, wanted, round])
  return { ...state, goOn: () => setRound(round + 1) }
}

/** Its data in readable form, and the whole of it. */
function Text({ id }) {
  const path = `/api/v1/transactions/${id}`
  const answer = useAnswer(path, 0, text)
  const { assets, metadata } = useMemo(() => dataOf(answer.value ?? ''), [answer.value])
  if (!answer.value) return html`<${Panel} title="Text"><${Waiting} answer=${answer} /></${Panel}>`
  return html`
    ${(assets.length > 0 || metadata !== undefined) && html`<${Panel} title="Data" wide><${Facts} rows=${[
      ...assets.map((asset, index) => [assets.length > 1 ? `Asset ${index + 1}` : 'Asset', html`<${Values} value=${asset} />`]),
      ['Metadata', metadata === undefined ? undefined : html`<${Values} value=${metadata} />`],
    ]} /></${Panel}>`}
    <${Panel} title="Raw JSON" wide aside=${html`<${Copy} text=${id} label="Copy id" />`}><${Source} text=${answer.value} file=${path} /></${Panel}>`
}

/** The data that strangers put into a transaction. */
export function dataOf(source) {
  try {
    const { asset, assets, metadata } = JSON.parse(source)
    const all = [asset, ...(Array.isArray(assets) ? assets : [])]
    return {
      assets: all.map((asset) => asset?.data).filter((data) => data !== undefined && data !== null),
      metadata: metadata ?? undefined,
    }
  } catch {
    return { assets: [] }
  }
}

/** Members shown of one object, and levels of objects in objects. */
const MEMBERS_SHOWN = 20
const LEVELS_SHOWN = 4

/** A value that a stranger chose, as names and values. */
export function Values({ value, level = 0 }) {
  if (typeof value === 'string') return html`<${Strange} text=${value} max=${500} />`
  if (value === null || typeof value !== 'object') return html`<span class="mono">${String(value)}</span>`
  const members = Object.entries(value)
  if (members.length === 0) return html`<span class="faint">${Array.isArray(value) ? 'an empty list' : 'empty'}</span>`
  if (level >= LEVELS_SHOWN) return html`<span class="faint">more in the JSON</span>`
  return html`<dl class="values">${members.slice(0, MEMBERS_SHOWN).map(([name, each]) => html`<div key=${name}><dt>${Array.isArray(value) ? Number(name) + 1 : html`<${Strange} text=${name} max=${60} />`}</dt><dd><${Values} value=${each} level=${level + 1} /></dd></div>`)}
    ${members.length > MEMBERS_SHOWN && html`<div><dt></dt><dd class="faint">and ${grouped(members.length - MEMBERS_SHOWN)} more in the JSON</dd></div>`}</dl>`
}

/** What a tracker entry recorded. */
function Records({ value }) {
  const { event, records = [] } = value
  const told = event.body?.records ?? []
  return html`<${Panel} title="Records" wide>
    ${told.length === 0 && html`<p class="empty">${event.outline ? 'What peers do is shown to them, and to the operator: on the node’s own machine, or with its token (see Submit).' : 'This entry moved nothing.'}</p>`}
    ${told.map((record, index) => html`<${Record} key=${record.seq} record=${record} more=${records[index] ?? {}} />`)}
    <${Source} text=${JSON.stringify(event)} />
  </${Panel}>`
}

function Record({ record, more }) {
  return html`<div class="part record"><${Facts} rows=${[
    ['Record', grouped(record.seq)],
    ['Amount', html`<${Amount} value=${record.amount} />`],
    ['From', record.from && html`<${Id} kind="object" value=${record.from} />`],
    ['To', record.to && html`<${Id} kind="object" value=${record.to} />`],
    ['Channel', record.channel && html`<${Id} kind="object" value=${record.channel} />`],
    ['Limit', more.limit && html`<${Amount} value=${more.limit} />`],
    ['Locked until', more.lock && html`<${Time} value=${more.lock} />`],
    ['Settled', more.settled && html`<span><${Amount} value=${more.settled.tokens} /> for ${grouped(more.settled.count)} quanta, ${bytes(more.settled.volume)}</span>`],
    ['Closed by', more.cause],
    ['Id', html`<span class="mono">${visible(record.tx_id)}</span>`],
  ]} /></div>`
}
