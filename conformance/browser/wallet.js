// Signs transactions of version 2.0, with nothing but Node's own cryptography.

import { createHash, createPrivateKey, createPublicKey, randomBytes, sign } from 'node:crypto'

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

function base58(bytes) {
  let number = BigInt('0x' + bytes.toString('hex'))
  let text = ''
  for (; number > 0n; number /= 58n) text = ALPHABET[Number(number % 58n)] + text
  const zeros = bytes.findIndex((byte) => byte !== 0)
  return '1'.repeat(zeros < 0 ? bytes.length : zeros) + text
}

const sha3 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha3-256')).digest()

/** JSON with sorted members and no blanks. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const members = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`)
  return `{${members.join(',')}}`
}

export class Key {
  constructor(seed = randomBytes(32)) {
    // PKCS#8 of an Ed25519 seed (RFC 8410, section 7).
    const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed])
    this.secret = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    this.bytes = createPublicKey(this.secret).export({ format: 'der', type: 'spki' }).subarray(-32)
    this.text = base58(this.bytes)
  }

  /** An output of this key. */
  output(amount = 1) {
    const fingerprint = createHash('sha256').update(Buffer.concat([Buffer.from('30228020', 'hex'), this.bytes])).digest('base64url')
    return {
      amount: String(amount),
      condition: {
        details: { type: 'ed25519-sha-256', public_key: this.text },
        uri: `ni:///sha-256;${fingerprint}?fpt=ed25519-sha-256&cost=131072`,
      },
      public_keys: [this.text],
    }
  }
}

function signed(transaction, key) {
  const unsigned = { ...transaction, id: null }
  const spends = transaction.inputs.map((input) => (input.fulfills ? input.fulfills.transaction_id + input.fulfills.output_index : ''))
  const inputs = transaction.inputs.map((input, index) => {
    const signature = sign(null, sha3(canonical(unsigned), spends[index]), key.secret)
    const fulfillment = Buffer.concat([Buffer.from('a4648020', 'hex'), key.bytes, Buffer.from('8140', 'hex'), signature])
    return { ...input, fulfillment: fulfillment.toString('base64url') }
  })
  const whole = { ...unsigned, inputs }
  const id = sha3(canonical(whole)).toString('hex')
  return { id, asset: transaction.asset.id ?? id, outputs: transaction.outputs, text: canonical({ ...whole, id }) }
}

/** A CREATE of `amount` units to `to`, the key itself by default. */
export function create(key, data, { amount = 1, to = key, metadata = null } = {}) {
  return signed({
    asset: { data }, inputs: [{ fulfillment: null, fulfills: null, owners_before: [key.text] }], metadata,
    operation: 'CREATE', outputs: [].concat(to).map((owner) => owner.output(amount)), version: '2.0',
  }, key)
}

/** A TRANSFER of `amount` units of one output to `to`; the rest goes back. */
export function transfer(key, from, index, to, amount, metadata = null) {
  const held = Number(from.outputs[index].amount)
  const outputs = [to.output(amount), ...(held > amount ? [key.output(held - amount)] : [])]
  return signed({
    asset: { id: from.asset }, metadata, operation: 'TRANSFER', outputs, version: '2.0',
    inputs: [{ fulfillment: null, fulfills: { transaction_id: from.id, output_index: index }, owners_before: [key.text] }],
  }, key)
}
