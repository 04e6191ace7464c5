// The frame around all pages: where one can go, searching, the connection, the colours.

import { render } from './vendor/preact.js'
import { useEffect, useMemo, useState } from './vendor/hooks.js'
import { Empty, html, Title } from './widgets.js'
import { grouped, span, visible } from './format.js'
import { start, useLive } from './live.js'
import { go, to, usePlace } from './router.js'
import { AssetPage } from './pages/asset.js'
import { BlockPage, BlocksPage } from './pages/blocks.js'
import { BusPage } from './pages/bus.js'
import { ChannelsPage, ObjectPage } from './pages/channels.js'
import { KeyPage } from './pages/key.js'
import { LedgerPage, LedgersPage } from './pages/ledgers.js'
import { LivePage } from './pages/live.js'
import { MachinesPage } from './pages/machines.js'
import { NodePage } from './pages/node.js'
import { SearchPage } from './pages/search.js'
import { SubmitPage } from './pages/submit.js'
import { TransactionPage } from './pages/transaction.js'
import { TransactionsPage } from './pages/transactions.js'

/**
 * Every page. `name` puts it into the navigation, `when` says whether the node has what it shows, `one`
 * is the page of one thing below it. A new page is a line here and a file in `pages/`.
 */
const PAGES = [
  { path: 'live', name: 'Live', all: LivePage },
  { path: 'transactions', name: 'Transactions', all: TransactionsPage, one: (id, params) => html`<${TransactionPage} key=${id} id=${id} params=${params} />` },
  { path: 'blocks', name: 'Blocks', all: BlocksPage, one: (height, params) => html`<${BlockPage} key=${height} height=${height} params=${params} />` },
  { path: 'channels', name: 'Channels', when: (node) => node?.tracker, all: ChannelsPage, one: (name, params) => html`<${ObjectPage} key=${name} name=${name} params=${params} />` },
  { path: 'ledgers', name: 'Ledgers', when: (node) => node?.consortium, all: LedgersPage, one: (name, params) => html`<${LedgerPage} key=${name} name=${name} params=${params} />` },
  { path: 'machines', name: 'Machines', all: MachinesPage },
  { path: 'bus', name: 'Bus', when: (node) => node?.bus, all: BusPage },
  { path: 'assets', one: (id, params) => html`<${AssetPage} key=${id} id=${id} params=${params} />` },
  { path: 'keys', one: (id, params) => html`<${KeyPage} key=${id} id=${id} params=${params} />` },
  { path: 'search', all: SearchPage },
  { path: 'submit', name: 'Submit', all: SubmitPage },
  { path: 'node', name: 'Node', all: NodePage },
]

function Page({ path, params }) {
  const [name = 'live', one, ...beyond] = path
  const page = PAGES.find((page) => page.path === name)
  if (page && beyond.length === 0) {
    if (one !== undefined && page.one) return page.one(one, params)
    if (one === undefined && page.all) return html`<${page.all} params=${params} />`
  }
  return html`<${Title}>Not here</${Title}><${Empty}>The console has no such page. <a href=${to(['live'])}>See what happens now</a>.</${Empty}>`
}

function Search() {
  const { path, params } = usePlace()
  const [text, setText] = useState('')
  const asked = path[0] === 'search' ? params.q ?? '' : ''
  useEffect(() => {
    setText((text) => asked || text)
    // What was looked for goes when one leaves; what is being typed stays.
    return () => setText((text) => (text.trim() === asked ? '' : text))
  }, [asked])
  useEffect(() => {
    const slash = (event) => {
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? '')
      if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault()
        document.getElementById('search').focus()
      }
    }
    addEventListener('keydown', slash)
    return () => removeEventListener('keydown', slash)
  }, [])
  const submit = (event) => {
    event.preventDefault()
    if (text.trim()) go(['search'], { q: text.trim() })
  }
  return html`<form class="search" role="search" onSubmit=${submit}>
    <input id="search" type="search" value=${text} onInput=${(event) => setText(event.currentTarget.value)} placeholder="Id, key, address, channel, ledger, height, words"
      aria-label="Search (press / to come here)" autocomplete="off" autocapitalize="none" spellcheck="false" />
  </form>`
}

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? 'system')
  const next = { system: 'light', light: 'dark', dark: 'system' }[theme]
  const choose = () => {
    if (next === 'system') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = next
    try {
      if (next === 'system') localStorage.removeItem('daybook-theme')
      else localStorage.setItem('daybook-theme', next)
    } catch {
      // Then it lasts as long as the page.
    }
    setTheme(next)
  }
  const name = { system: 'as the system', light: 'light', dark: 'dark' }
  return html`<button type="button" class="theme" onClick=${choose} aria-label=${`Colours: ${name[theme]}. Change to ${name[next]}.`} title=${`Colours: ${name[theme]}`}>
    <svg viewBox="0 0 20 20" aria-hidden="true">${theme === 'light'
      ? html`<circle cx="10" cy="10" r="4" /><path d="M10 1.5v2M10 16.5v2M1.5 10h2M16.5 10h2M4 4l1.4 1.4M14.6 14.6L16 16M4 16l1.4-1.4M14.6 5.4L16 4" />`
      : theme === 'dark' ? html`<path d="M16.5 12.2A7 7 0 1 1 8 3.3a5.6 5.6 0 0 0 8.5 8.9z" />`
      : html`<circle cx="10" cy="10" r="7" /><path class="fill" d="M10 3a7 7 0 0 1 0 14z" />`}</svg>
  </button>`
}

const STATES = { connecting: 'connecting', live: 'live', lost: 'connection lost', resuming: 'catching up' }

function Connection() {
  const live = useLive()
  const [, setTick] = useState(0)
  useEffect(() => {
    if (live.status !== 'lost') return undefined
    const timer = setInterval(() => setTick((tick) => tick + 1), 1_000)
    return () => clearInterval(timer)
  }, [live.status])
  return html`
    <span class=${`connection ${live.status}`} title=${STATES[live.status]}><i></i><span>${STATES[live.status]}</span></span>
    ${live.status === 'lost' && live.height !== undefined && html`<p class="banner" role="alert">The connection to the node was lost ${span(Math.max(1_000, Date.now() - live.since))} ago. What you see is as of block ${grouped(live.height)}; it goes on from there as soon as the node answers.</p>`}
    ${live.changed && html`<p class="banner" role="alert">The node now holds another ledger, or an earlier state of this one. Pages opened before may show what is no longer there.</p>`}`
}

function Frame() {
  const { path, params, hash } = usePlace()
  const live = useLive()
  const [name = 'live'] = path
  const node = live.node
  const shown = PAGES.filter((page) => page.name && (!page.when || page.when(node)))
  const current = PAGES.find((page) => page.path === name)?.name ?? name
  // The same page is not drawn anew with each block; pages that follow the ledger say so themselves.
  const page = useMemo(() => html`<${Page} path=${path} params=${params} />`, [path, params])
  useEffect(() => {
    document.title = `${path[1] ? path[1].slice(0, 12) + ' · ' : ''}${current.charAt(0).toUpperCase()}${current.slice(1)} · Daybook`
    scrollTo(0, 0)
  }, [path.join('/'), params.before, params.from])
  return html`
    <a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); document.querySelector('#content h1')?.focus() }}>Skip to the content</a>
    <header class="top">
      <a class="brand" href=${to(['live'])}><img src="/console/icon.svg" alt="" width="24" height="24" /><span>Daybook</span>${node && html`<span class="chain" title="The name of this chain"><bdi>${visible(node.chain)}</bdi></span>`}</a>
      <nav aria-label="Pages">${shown.map((page) => html`<a key=${page.path} href=${to([page.path])} aria-current=${page.path === name ? 'page' : undefined}>${page.name}</a>`)}</nav>
      <${Search} />
      <div class="tail"><${Theme} /><${Connection} /></div>
    </header>
    <main id="content" data-place=${hash}>${page}</main>`
}

const app = document.getElementById('app')
app.replaceChildren()
render(html`<${Frame} />`, app)
start()
