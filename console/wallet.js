// The wallet of this browser: one key that no script can read, and transfers signed with it.

import { data } from './node.js'
import { sha3 } from './sha3.js'

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const ED25519 = { name: 'Ed25519' }
const DATABASE = 'daybook-wallet'
const STORE = 'keys'
const OWN = 'own'
/** Pages of a hundred outputs that are looked through for coins. */
const PAGES_MAX = 20
/** Outputs that one transfer spends at most. */
const COINS_MAX = 100
/** The largest amount of one output. */
const AMOUNT_MAX = 9_000_000_000_000_000_000n

const utf8 = (text) => new TextEncoder().encode(text)
const joined = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]))
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')

function base58(bytes) {
  let text = ''
  for (let number = BigInt('0x' + hex(bytes)); number > 0n; number /= 58n) text = ALPHABET[Number(number % 58n)] + text
  const zeros = bytes.findIndex((byte) => byte !== 0)
  return '1'.repeat(zeros < 0 ? bytes.length : zeros) + text
}

/** JSON with sorted members and no blanks: the text that ids and signatures are made over. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const members = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`)
  return `{${members.join(',')}}`
}

/** Why there is no wallet here, if there is none. */
export function missing() {
  if (!globalThis.isSecureContext || !globalThis.crypto?.subtle) return 'A browser keeps keys only for pages that it loaded over TLS or from this very computer.'
  if (!globalThis.indexedDB) return 'This browser keeps nothing for this page.'
  return undefined
}

function database() {
  return new Promise((done, failed) => {
    const opening = indexedDB.open(DATABASE, 1)
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE)
    opening.onsuccess = () => done(opening.result)
    opening.onerror = () => failed(opening.error)
  })
}

function stored(mode, ask) {
  return database().then((base) => new Promise((done, failed) => {
    const turn = base.transaction(STORE, mode)
    const asked = ask(turn.objectStore(STORE))
    turn.oncomplete = () => {
      base.close()
      done(asked.result)
    }
    turn.onabort = turn.onerror = () => failed(turn.error)
  }))
}

/** The wallet that is kept here; `undefined` when none was made. */
export async function kept() {
  const pair = await stored('readonly', (store) => store.get(OWN))
  return pair && wallet(pair)
}

/** Makes a wallet, unless there is one. */
export async function made() {
  const before = await kept()
  if (before) return before
  for (;;) {
    // Not extractable: a script may sign with it, and none can take it away.
    const pair = await crypto.subtle.generateKey(ED25519, false, ['sign', 'verify'])
    const own = await wallet(pair)
    // Keys of 43 or 44 characters only are taken by ledgers; one in thousands is shorter.
    if (own.key.length < 43) continue
    try {
      await stored('readwrite', (store) => store.add(pair, OWN))
      return own
    } catch {
      // Another page was faster: its key counts.
      return kept()
    }
  }
}

async function wallet(pair) {
  const bytes = new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey))
  return {
    bytes,
    key: base58(bytes),
    sign: async (message) => new Uint8Array(await crypto.subtle.sign(ED25519, pair.privateKey, message)),
  }
}

/** The bytes of a public key in base58; `undefined` when it is none. */
function keyBytes(text) {
  if (typeof text !== 'string' || !/^[1-9A-HJ-NP-Za-km-z]{43,44}$/.test(text)) return undefined
  let number = 0n
  for (const char of text) number = number * 58n + BigInt(ALPHABET.indexOf(char))
  const digits = number.toString(16).padStart(64, '0')
  if (digits.length !== 64) return undefined
  const bytes = Uint8Array.from(digits.match(/../g), (pair) => parseInt(pair, 16))
  return base58(bytes) === text ? bytes : undefined
}

/** An output that one key opens. */
async function output(bytes, key, amount) {
  const content = joined([0x30, 0x22, 0x80, 0x20], bytes)
  const fingerprint = base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', content)))
  return {
    amount: String(amount),
    condition: { details: { type: 'ed25519-sha-256', public_key: key }, uri: `ni:///sha-256;${fingerprint}?fpt=ed25519-sha-256&cost=131072` },
    public_keys: [key],
  }
}

/** Unspent outputs of the wallet that hold an asset, until they hold enough. */
async function coins(key, asset, units) {
  const found = []
  let held = 0n
  let before
  for (let page = 0; page < PAGES_MAX && held < units && found.length < COINS_MAX; page += 1) {
    const listed = await data('outputs', { key, before, limit: 100 })
    for (const coin of listed.outputs) {
      if (coin.spent || coin.asset !== asset || coin.keys !== 1 || held >= units || found.length >= COINS_MAX) continue
      found.push(coin)
      held += BigInt(coin.amount)
    }
    before = listed.next
    if (!before) break
  }
  return { found, held }
}

/** A signed transfer of units to a key; what is over comes back. `{ id, text }`. */
export async function transfer(own, asset, to, units, metadata) {
  const wanted = BigInt(units)
  const payee = keyBytes(to)
  if (!payee) throw new Error('The machine named no public key.')
  if (!/^[0-9a-f]{64}$/.test(asset)) throw new Error('The machine named no token.')
  if (wanted < 1n || wanted > AMOUNT_MAX) throw new Error('This is no amount that can be paid.')
  const { found, held } = await coins(own.key, asset, wanted)
  if (held < wanted) throw new Error(`The wallet holds ${held} of this token, and ${wanted} are wanted.`)
  const outputs = [await output(payee, to, wanted)]
  if (held > wanted) outputs.push(await output(own.bytes, own.key, held - wanted))
  const inputs = found.map((coin) => ({ fulfillment: null, fulfills: { output_index: coin.index, transaction_id: coin.transaction }, owners_before: [own.key] }))
  const unsigned = { asset: { id: asset }, id: null, inputs, metadata, operation: 'TRANSFER', outputs, version: '2.0' }
  const message = utf8(canonical(unsigned))
  const signed = await Promise.all(inputs.map(async (input) => {
    const place = utf8(input.fulfills.transaction_id + input.fulfills.output_index)
    const signature = await own.sign(sha3(joined(message, place)))
    const fulfillment = joined([0xa4, 0x64, 0x80, 0x20], own.bytes, [0x81, 0x40], signature)
    return { ...input, fulfillment: base64url(fulfillment) }
  }))
  const whole = { ...unsigned, inputs: signed }
  const id = hex(sha3(utf8(canonical(whole))))
  return { id, text: canonical({ ...whole, id }) }
}
