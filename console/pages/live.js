// What happens now: blocks and transactions as they commit, how many and how fast.

import { useEffect, useState } from '../vendor/hooks.js'
import { Empty, html, Id, Panel, Time, Title } from '../widgets.js'
import { Entries } from '../entries.js'
import { Plot } from '../plot.js'
import { grouped, measure } from '../format.js'
import { nodeNow, SECONDS_KEPT, useLive } from '../live.js'
import { metrics, usePolled } from '../node.js'
import { to } from '../router.js'

/** Rows of the two lists. */
const ENTRIES_SHOWN = 25
const BLOCKS_SHOWN = 12

/** Milliseconds between two looks at the node's meters. */
const METERS_MS = 2_000

/** Means of the flush that are plotted. */
const FLUSHES_KEPT = 60

/** Rows that stay as they are while somebody reads them. */
function useHeld(held, present) {
  const [kept, setKept] = useState()
  useEffect(() => setKept(held ? present : undefined), [held])
  return held && kept ? kept : present
}

/** Entries per second, one value a second, the last whole second at the right. */
function rates(seconds) {
  const now = Math.floor(nodeNow() / 1000)
  return Array.from({ length: SECONDS_KEPT }, (_, index) => seconds.get(now - SECONDS_KEPT + index)?.entries ?? 0)
}

/** The mean time of a flush between two looks, from the sums of a histogram. */
export function useFlushes() {
  const { value } = usePolled('/metrics', METERS_MS, metrics)
  const [seen, setSeen] = useState({ means: [] })
  useEffect(() => {
    if (!value) return
    const sample = (name) => Number(value.samples.find((sample) => sample.name === name)?.value ?? Number.NaN)
    const sum = sample('daybook_flush_seconds_sum')
    const count = sample('daybook_flush_seconds_count')
    setSeen((before) => {
      const blocks = count - before.count
      const mean = blocks > 0 ? ((sum - before.sum) / blocks) * 1000 : undefined
      return { sum, count, means: [...before.means, mean].slice(-FLUSHES_KEPT) }
    })
  }, [value])
  return seen.means
}

export function LivePage() {
  const live = useLive()
  const [held, setHeld] = useState(false)
  const [, setTick] = useState(0)
  const flushes = useFlushes()
  // Rates fall to zero although nothing arrives.
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setTick((tick) => tick + 1), 1_000)
    return () => clearInterval(timer)
  }, [])
  const entries = useHeld(held, live.entries)
  const blocks = useHeld(held, live.blocks)
  const perSecond = rates(live.seconds)
  const lately = perSecond.slice(-10).reduce((sum, rate) => sum + rate, 0) / 10
  const padded = [...Array.from({ length: Math.max(0, FLUSHES_KEPT - flushes.length) }), ...flushes]
  if (live.height === undefined) return html`<${Title}>Live</${Title}><${Empty}>${live.status === 'lost' ? 'The node cannot be reached. Trying again…' : 'Connecting…'}</${Empty}>`
  return html`
    <${Title} aside=${html`<button type="button" class="button" aria-pressed=${held} onClick=${() => setHeld(!held)}>${held ? 'Go on' : 'Pause'}</button>`}>Live</${Title}>
    <div class="tiles">
      <div class="tile"><span>Height</span><strong id="height"><a href=${to(['blocks', String(live.height)])}>${grouped(live.height)}</a></strong></div>
      <div class="tile"><span>Transactions</span><strong id="count">${grouped(live.transactions)}</strong></div>
      <div class="tile"><span>Per second</span><strong>${measure(lately)}</strong></div>
      <div class="tile"><span>Newest block</span><strong>${live.blocks[0] ? html`<${Time} value=${live.blocks[0].time} />` : '–'}</strong></div>
    </div>
    <div class="plots">
      <${Plot} title="Rate" unit="transactions/s" values=${perSecond} seconds=${SECONDS_KEPT} />
      <${Plot} title="Flush to disk, mean" unit="ms" values=${padded} seconds=${(FLUSHES_KEPT * METERS_MS) / 1000} />
    </div>
    <${Panel} title="Transactions" wide aside=${html`<a href=${to(['transactions'])}>All transactions</a>`}>
      <${Entries} entries=${entries.slice(0, ENTRIES_SHOWN)} empty="No transaction has been committed yet. This page shows the first one as it happens." />
    </${Panel}>
    <${Panel} title="Blocks" wide aside=${html`<a href=${to(['blocks'])}>All blocks</a>`}>
      <${BlockList} blocks=${blocks.slice(0, BLOCKS_SHOWN)} />
    </${Panel}>`
}

/** A list of blocks. */
export function BlockList({ blocks }) {
  if (blocks.length === 0) return html`<${Empty}>No block yet.</${Empty}>`
  return html`<div class="list blocks" role="table" aria-label="Blocks">
    <div class="row head" role="row"><span role="columnheader">Time</span><span role="columnheader">Height</span><span role="columnheader">Entries</span><span role="columnheader">Hash</span></div>
    ${blocks.map((block) => html`<div class="row" role="row" key=${block.height}>
      <span role="cell" class="when"><${Time} value=${block.time} /></span>
      <span role="cell"><a href=${to(['blocks', String(block.height)])}>${grouped(block.height)}</a></span>
      <span role="cell">${grouped(block.count)}</span>
      <span role="cell"><${Id} kind="hash" value=${block.hash} /></span>
    </div>`)}
  </div>`
}
