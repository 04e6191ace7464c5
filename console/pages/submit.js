// Sending a transaction that was signed elsewhere. The console holds no key; the token stays in this page.

import { useState } from '../vendor/hooks.js'
import { html, Id, Panel, Strange, Title } from '../widgets.js'
import { authorization, Problem, secret, text, useData } from '../node.js'
import { outcome } from '../sending.js'

export function SubmitPage() {
  const node = useData('node')
  const [source, setSource] = useState('')
  const [token, setToken] = useState(secret.token)
  const [state, setState] = useState({})
  const required = node.value?.token_required
  const send = async (event) => {
    event.preventDefault()
    let id
    try {
      id = JSON.parse(source).id
    } catch {
      setState({ wrong: 'This is no JSON.' })
      return
    }
    if (typeof id !== 'string' || !/^[0-9a-f]{64}$/.test(id)) {
      setState({ wrong: 'It has no id: only signed transactions can be sent.' })
      return
    }
    setState({ busy: 'Waiting for its block…' })
    try {
      const headers = { 'content-type': 'application/json', ...authorization() }
      await text('/api/v1/transactions?mode=commit', { method: 'POST', body: source, headers })
      setState({ id })
    } catch (problem) {
      if (problem instanceof Problem && problem.status >= 400 && problem.status < 500 && problem.status !== 408) {
        setState({ wrong: problem.status === 401 ? 'The node wants its write token, and this is not it.' : problem.message })
      } else {
        // It may have been taken all the same. It is looked for and never sent twice.
        setState({ busy: 'The answer was lost. Looking for what became of it…' })
        setState(await outcome(id))
      }
    }
  }
  return html`<${Title}>Submit</${Title}>
    <${Panel}>
      <p>Send a transaction that was signed elsewhere, for example by <code>daybook tx create --dry-run</code>.</p>
      <form class="submit" onSubmit=${send}>
        <label>Signed transaction, JSON
          <textarea rows="12" spellcheck="false" autocomplete="off" value=${source} onInput=${(event) => setSource(event.currentTarget.value)} required></textarea>
        </label>
        ${required && html`<label>Write token
          <input type="password" autocomplete="off" value=${token} onInput=${(event) => setToken(secret.token = event.currentTarget.value)} />
          <span class="faint">Kept in this page only, until it is closed or loaded again.</span>
        </label>`}
        <div><button type="submit" class="button main" disabled=${Boolean(state.busy)}>Send</button></div>
      </form>
      <div role="status">
        ${state.busy && html`<p aria-busy="true">${state.busy}</p>`}
        ${state.wrong && html`<p class="problem"><${Strange} text=${state.wrong} max=${2_000} /></p>`}
        ${state.unknown && html`<p class="problem">It is not known what became of it. Look for <${Id} kind="transaction" value=${state.unknown} /> before you send it again.</p>`}
        ${state.id && html`<p class="done">Committed: <${Id} kind="transaction" value=${state.id} /></p>`}
      </div>
    </${Panel}>`
}
