// SHA3-256 (FIPS 202), which browsers do not have: ids of transactions and what is signed are made of it.

const MASK = (1n << 64n) - 1n
/** Bytes that are taken in at a time: the rate of SHA3-256. */
const RATE = 136

const turned = (lane, count) => ((lane << count) | (lane >> (64n - count))) & MASK

/** The constants of the rounds, from their shift register (section 3.2.5). */
const ROUNDS = (() => {
  const constants = []
  let register = 1
  for (let round = 0; round < 24; round += 1) {
    let constant = 0n
    for (let bit = 0; bit <= 6; bit += 1) {
      if (register & 1) constant |= 1n << ((1n << BigInt(bit)) - 1n)
      register <<= 1
      if (register & 0x100) register ^= 0x171
    }
    constants.push(constant)
  }
  return constants
})()

function permute(state) {
  for (const constant of ROUNDS) {
    const columns = [0, 1, 2, 3, 4].map((x) => state[x] ^ state[x + 5] ^ state[x + 10] ^ state[x + 15] ^ state[x + 20])
    for (let x = 0; x < 5; x += 1) {
      const mix = columns[(x + 4) % 5] ^ turned(columns[(x + 1) % 5], 1n)
      for (let y = 0; y < 25; y += 5) state[x + y] ^= mix
    }
    let [x, y, lane] = [1, 0, state[1]]
    for (let step = 0; step < 24; step += 1) {
      ;[x, y] = [y, (2 * x + 3 * y) % 5]
      const place = x + 5 * y
      const next = state[place]
      state[place] = turned(lane, BigInt((((step + 1) * (step + 2)) / 2) % 64))
      lane = next
    }
    for (let row = 0; row < 25; row += 5) {
      const lanes = state.slice(row, row + 5)
      for (let at = 0; at < 5; at += 1) state[row + at] = lanes[at] ^ (~lanes[(at + 1) % 5] & MASK & lanes[(at + 2) % 5])
    }
    state[0] ^= constant
  }
}

/** The digest of bytes: 32 bytes. */
export function sha3(bytes) {
  const padded = new Uint8Array(Math.ceil((bytes.length + 1) / RATE) * RATE)
  padded.set(bytes)
  padded[bytes.length] = 0x06
  padded[padded.length - 1] |= 0x80
  const words = new DataView(padded.buffer)
  const state = new Array(25).fill(0n)
  for (let block = 0; block < padded.length; block += RATE) {
    for (let lane = 0; lane < RATE / 8; lane += 1) state[lane] ^= words.getBigUint64(block + 8 * lane, true)
    permute(state)
  }
  const digest = new DataView(new ArrayBuffer(32))
  for (let lane = 0; lane < 4; lane += 1) digest.setBigUint64(8 * lane, state[lane], true)
  return new Uint8Array(digest.buffer)
}
