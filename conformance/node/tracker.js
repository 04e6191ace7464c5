// A peer of the wallet tracker, made of parts that know nothing of it: it is told how to sign, and
// follows the protocol's document. Also used in the browser, so nothing here is Node's own.

/** Command codes (wallet tracker, section 7). */
export const Command = {
  handshake: 1, openIncome: 2, openSpend: 4, openTransfer: 8, closeTransfer: 16, closeIncome: 32,
  closeSpend: 64, incomeState: 128, spendState: 256, transferState: 512, first: 1024, next: 2048,
  touch: 4096, commonState: 8192,
}

const ANSWER_MS_MAX = 30_000

/** A refusal, with its stable code. */
export class Refused extends Error {
  constructor(reply) {
    super(`${reply.error} (${reply.code})`)
    this.code = reply.code
    this.reply = reply
  }
}

/**
 * One connection. `key` has `pem`, `sign(text)` and `verify(pem, text, sign)`, the last two of which
 * may be asynchronous.
 */
export class Peer {
  #waiting = new Map()
  #count = 0

  static async connect(Socket, address, key) {
    const peer = new Peer()
    peer.key = key
    peer.socket = new Socket(address)
    await new Promise((resolve, reject) => {
      peer.socket.onopen = resolve
      peer.socket.onerror = () => reject(new Error(`no connection to ${address}`))
    })
    peer.socket.onmessage = ({ data }) => peer.#take(JSON.parse(data))
    const reply = await peer.request(Command.handshake, await peer.#single(key.pem))
    peer.tracker = reply.data.message
    if (!await key.verify(peer.tracker, reply.data.message, reply.data.sign)) {
      throw new Error('the handshake is not signed by the key in it')
    }
    return peer
  }

  close() {
    this.socket.close()
  }

  #take(reply) {
    const token = reply.corrToken || (reply.error ? reply.data : '')
    this.#waiting.get(token)?.(reply)
    this.#waiting.delete(token)
  }

  /** Sends a frame; answers the reply, whatever it says. */
  send(cmd, payload) {
    const corrToken = `t-${(this.#count += 1)}`
    const answered = new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no answer to ${cmd}`)), ANSWER_MS_MAX)
      this.#waiting.set(corrToken, (reply) => {
        clearTimeout(late)
        resolve(reply)
      })
    })
    this.socket.send(JSON.stringify({ cmd, corrToken, payload }))
    return answered
  }

  async request(cmd, payload) {
    const reply = await this.send(cmd, payload)
    if (reply.error !== undefined) throw new Refused(reply)
    if (reply.cmd !== cmd) throw new Error(`a reply to ${reply.cmd}, not to ${cmd}`)
    return reply
  }

  async #single(message) {
    return { message, pk: this.key.pem, sign: await this.key.sign(message) }
  }

  /** A message of version 1: the bare key, or JSON with the key in it. */
  async ask(cmd, members) {
    const text = members === undefined
      ? this.key.pem
      : JSON.stringify({ ...members, pk: this.key.pem })
    return this.#read(await this.request(cmd, await this.#single(text)))
  }

  /** Sends what two keys have signed. */
  async submit(cmd, payload) {
    return this.#read(await this.request(cmd, payload))
  }

  async #read(reply) {
    const { message, sign } = reply.data
    if (!await this.key.verify(this.tracker, message, sign)) {
      throw new Error(`the reply to ${reply.cmd} is not signed by the tracker`)
    }
    const answer = JSON.parse(message)
    if (answer.pk !== undefined && answer.pk !== this.tracker) {
      throw new Error(`the reply to ${reply.cmd} names another key`)
    }
    return answer
  }
}

/** A container that payer and payee sign (section 3.4). */
export async function cosigned(payer, payee, message) {
  return {
    message,
    fromPK: payer.pem,
    fromSign: await payer.sign(message),
    toPK: payee.pem,
    toSign: await payee.sign(message),
  }
}

/** The eight members of a contract, and with `volume` the three of a close (sections 8.5 and 8.6). */
export function contract(payer, payee, terms, volume) {
  const message = {
    fromPK: payer.pem,
    toPK: payee.pem,
    channelId: terms.channelId,
    fromAddress: terms.fromAddress,
    toAddress: terms.toAddress,
    priceTokens: String(terms.price),
    priceQuantumPower: terms.power,
    plannedQuantumCount: terms.planned,
  }
  if (volume !== undefined) {
    const count = Math.ceil(volume / 2 ** terms.power)
    message.tokens = String(terms.price * count)
    message.quantumCount = count
    message.volume = volume
  }
  return JSON.stringify(message)
}

function equal(actual, wanted, what) {
  const [a, w] = [JSON.stringify(actual), JSON.stringify(wanted)]
  if (a !== w) throw new Error(`${what}: ${a} where ${w} was expected`)
}

async function refused(promise, code) {
  try {
    await promise
  } catch (error) {
    equal(error.code, code, `${error.message}: code`)
    return
  }
  throw new Error(`not refused with ${code}`)
}

/** The text that a listed record's signature covers (section 12). */
function recordText(item) {
  const members = ['amount', 'contract_id', 'from', 'tx_id', 'parent_tx_id', 'planned_quantum_count',
    'price_amount', 'price_quantum_power', 'pk', 'quantum_count', 'status', 'timelock', 'timestamp',
    'to', 'tx_type', 'version', 'volume']
  return JSON.stringify(Object.fromEntries(members.map((name) => [name, item[name]])))
}

/**
 * The whole life of two peers: addresses, a channel with receipts, its close, queries, and the list
 * of records page by page. `payer` and `payee` are connected; `verify` is that of any key's suite.
 */
export async function story(payer, payee, verify) {
  const spend = await payer.ask(Command.openSpend)
  equal(spend.current, { amount: '10000', quantumVolume: 0, volume: 0 }, 'a new spend address')
  equal(spend.limit, { amount: '10000', quantumVolume: 0 }, 'its limit')
  equal(typeof spend.lifetime, 'number', 'its lifetime')
  const income = await payee.ask(Command.openIncome)
  equal(income.price, { amount: '500', quantumPower: 25 }, 'the least price')
  const terms = {
    channelId: `story-${spend.address.slice(-20)}`,
    fromAddress: spend.address,
    toAddress: income.address,
    price: 500,
    power: 25,
    planned: 8,
  }
  const open = await cosigned(payer.key, payee.key, contract(payer.key, payee.key, terms))
  const opened = await payee.submit(Command.openTransfer, open)
  equal(opened.timelock <= Math.min(spend.timelock, income.timelock), true, 'the nesting of locks')
  const again = await payee.submit(Command.openTransfer, open)
  equal(again.timelock, opened.timelock, 'the lock of the same opening again')

  // More than the limit has left: 4000 are reserved, 6500 wanted.
  const dear = { ...terms, channelId: `${terms.channelId}-dear`, planned: 13 }
  const tooMuch = await cosigned(payer.key, payee.key, contract(payer.key, payee.key, dear))
  await refused(payee.submit(Command.openTransfer, tooMuch), 'insufficient_limit')
  const stranger = { ...open, fromSign: open.toSign }
  await refused(payee.submit(Command.openTransfer, stranger), 'bad_signature')
  const { channelId } = terms
  equal((await payer.ask(Command.transferState, { channelId })).state, 2, 'an open channel')
  equal((await payer.ask(Command.transferState, { channelId: 'none' })).state, 1, 'no channel')

  // Receipts: closes with growing totals, of which the payee countersigns the last one only.
  const receipts = []
  for (const volume of [20_000_000, 60_000_000, 100_000_000]) {
    const message = contract(payer.key, payee.key, terms, volume)
    receipts.push({ message, sign: await payer.key.sign(message) })
  }
  const { message, sign } = receipts.at(-1)
  const close = {
    message,
    fromPK: payer.key.pem,
    fromSign: sign,
    toPK: payee.key.pem,
    toSign: await payee.key.sign(message),
  }
  await payee.submit(Command.closeTransfer, close)
  await payee.submit(Command.closeTransfer, close)
  const older = await cosigned(payer.key, payee.key, receipts[1].message)
  await refused(payer.submit(Command.closeTransfer, older), 'already_closed')
  equal((await payer.ask(Command.transferState, { channelId })).state, 4, 'a closed channel')

  const paid = await payer.ask(Command.spendState, { address: spend.address })
  equal(paid.current, { amount: '8500', quantumVolume: 100_663_296, volume: 100_000_000 }, 'spent')
  equal(paid.limit.amount, '8500', 'what was reserved is free again')
  const earned = await payer.ask(Command.incomeState, { address: income.address })
  equal(earned.current, { amount: '1500', quantumVolume: 100_663_296, volume: 100_000_000 }, 'earned')

  // The list of the payee, one record a page, newest first; frozen while the close below arrives.
  const fields = { channel_id: { value: channelId } }
  const first = await payee.ask(Command.first, { limits: { pageSize: 1, page: 1 }, order: 2, fields })
  const { cursorId, ...meta } = first._meta
  equal(meta, { totalCount: 2, pageCount: 2, currentPage: 1, perPage: 1 }, 'the list')
  await refused(payee.ask(Command.closeIncome, { address: spend.address }), 'bad_address')
  const closed = await payee.ask(Command.closeIncome, { address: income.address })
  equal(closed.state.amount, '1500', 'what went back')
  const second = await payee.ask(Command.next, { cursorId, page: 2 })
  const items = [...first.items, ...second.items]
  equal(items.map((item) => item.tx_type), [16, 8], 'the channel\'s records')
  equal(items[0].parent_tx_id, items[1].tx_id, 'the close names its opening')
  equal([items[0].amount, items[0].quantum_count, items[0].volume], [1500, 3, 100_000_000], 'totals')
  for (const item of items) {
    equal(await verify(item.pk, recordText(item), item.sign), true, 'the signature of a record')
  }
  await payee.ask(Command.touch, { cursorId })
  equal((await payee.ask(Command.next, { cursorId, page: 3 })).items, [], 'behind the last page')
  await refused(payee.ask(Command.touch, { cursorId: 'gone' }), 'cursor_unknown')

  await payer.ask(Command.closeSpend, { address: spend.address })
  await refused(payer.ask(Command.spendState, { address: spend.address }), 'already_closed')
}

/** A channel that pays the payee's wallet. */
export async function walletStory(payer, payee, wallet) {
  const before = await payee.ask(Command.commonState, { address: wallet })
  const spend = await payer.ask(Command.openSpend)
  const terms = {
    channelId: `wallet-${spend.address.slice(-20)}`,
    fromAddress: spend.address,
    toAddress: wallet,
    price: 500,
    power: 25,
    planned: 4,
  }
  const open = await cosigned(payer.key, payee.key, contract(payer.key, payee.key, terms))
  await payee.submit(Command.openTransfer, open)
  const planned = await payee.ask(Command.commonState, { address: wallet })
  equal(planned.state.own.plan, '2000', 'what the wallet may get')
  const close = contract(payer.key, payee.key, terms, 40_000_000)
  await payee.submit(Command.closeTransfer, await cosigned(payer.key, payee.key, close))
  const after = await payee.ask(Command.commonState, { address: wallet })
  const gained = BigInt(after.state.own.fact) - BigInt(before.state.own.fact)
  equal(String(gained), '1000', 'what the wallet got')
  await payer.ask(Command.closeSpend, { address: spend.address })
}
