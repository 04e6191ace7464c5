// Peers on a page: the browser's own cryptography and its own WebSocket.

import { Peer, story, walletStory } from './tracker.js'

const { subtle } = crypto

const RSA = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const ED25519 = { name: 'Ed25519' }

const bytes = (text) => new TextEncoder().encode(text)
const toBase64 = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))

function toPem(spki) {
  const lines = toBase64(spki).match(/.{1,64}/g).join('\n')
  return `-----BEGIN PUBLIC KEY-----\n${lines}\n-----END PUBLIC KEY-----`
}

const spkiOf = (pem) => fromBase64(pem.replace(/-----[A-Z ]+-----/g, '').replace(/\s/g, ''))

/** The suite by the algorithm identifier inside the key (section 4.4). */
function suiteOf(spki) {
  const hex = [...spki.slice(0, 32)].map((b) => b.toString(16).padStart(2, '0')).join('')
  if (hex.includes('06032b6570')) return ED25519
  if (hex.includes('06072a8648ce3d0201')) return P256
  return RSA
}

async function verify(pem, text, sign) {
  const spki = spkiOf(pem)
  const suite = suiteOf(spki)
  const key = await subtle.importKey('spki', spki, suite, false, ['verify'])
  return subtle.verify(suite, key, fromBase64(sign), bytes(text))
}

async function newKey(suite) {
  const options = suite === RSA
    ? { ...RSA, modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) }
    : suite
  const pair = await subtle.generateKey(options, true, ['sign', 'verify'])
  return {
    pem: toPem(await subtle.exportKey('spki', pair.publicKey)),
    sign: async (text) => toBase64(await subtle.sign(suite, pair.privateKey, bytes(text))),
    verify,
  }
}

async function run(address, payerSuite, payeeSuite) {
  const payer = await Peer.connect(WebSocket, address, await newKey(payerSuite))
  const payee = await Peer.connect(WebSocket, address, await newKey(payeeSuite))
  try {
    await story(payer, payee, verify)
    await walletStory(payer, payee, '0x0b1dac42cc91283064ePh0awiUFpni1WT_sRm38BktGW4rLqj72ezasw==')
  } finally {
    payer.close()
    payee.close()
  }
  return 'done'
}

window.suites = { RSA, P256, ED25519 }
window.run = (address, payer, payee) => run(address, window.suites[payer], window.suites[payee])
window.handshake = async (address) => {
  const peer = await Peer.connect(WebSocket, address, await newKey(RSA))
  peer.close()
  return peer.tracker
}
