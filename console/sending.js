// Sending a signed transaction, and learning what became of it. It is never sent twice.

import { authorization, data, Problem, text } from './node.js'

/** Times that an unknown outcome is asked for, and the wait between, in milliseconds. */
const LOOKS = 20
const LOOK_MS = 500

/**
 * Sends, and waits for the block: `{ id }` when it is committed, `{ wrong }` when it is refused, and
 * `{ unknown: id }` when that could not be learned. `lost` is told when the answer did not come.
 */
export async function send({ id, text: body }, lost) {
  try {
    const headers = { 'content-type': 'application/json', ...authorization() }
    await text('/api/v1/transactions?mode=commit', { method: 'POST', body, headers })
    return { id }
  } catch (problem) {
    if (problem instanceof Problem && problem.status >= 400 && problem.status < 500 && problem.status !== 408) {
      // Somebody else may have sent it first, as a machine does that was handed its payment.
      const found = await look(id)
      if (found) return found.pending ? outcome(id) : found
      return { wrong: problem.status === 401 ? 'The node wants its write token, and this is not it.' : problem.message }
    }
    lost()
    return outcome(id)
  }
}

/** What became of one that somebody else was to send; it is sent from here only if the node does not know it. */
export async function ensure(transaction, lost) {
  const found = await look(transaction.id)
  if (!found) return send(transaction, lost)
  return found.pending ? outcome(transaction.id) : found
}

/** What the node knows of it: it is committed, was rejected, waits for its block, or nothing. */
async function look(id) {
  try {
    const { status, message } = await data(`transactions/${id}`)
    if (status === 'committed') return { id }
    if (status === 'rejected') return { wrong: message }
    if (status === 'pending') return { pending: true }
  } catch {
    // Not there, or the node is not.
  }
  return undefined
}

/** What became of one whose answer was lost: it is asked for by its id, for a while. */
export async function outcome(id) {
  for (let looks = 0; looks < LOOKS; looks += 1) {
    await new Promise((done) => setTimeout(done, LOOK_MS))
    const found = await look(id)
    if (found && !found.pending) return found
  }
  return { unknown: id }
}
