// node-rsa and Node's own cryptography over `ws`, against a real node.

import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto'
import { createRequire } from 'node:module'
import { after, before, describe, test } from 'node:test'
import WebSocket from 'ws'

import { Node } from './daybook.js'
import { Command, Peer, story, walletStory } from './tracker.js'

const NodeRSA = createRequire(import.meta.url)('node-rsa')

let node

before(async () => {
  node = await Node.start('tracker-javascript')
})

after(() => node?.stop())

/** The scheme of node-rsa 1.x by default; said here because it is what the protocol wants. */
const SCHEME = { signingScheme: 'pkcs1-sha256' }

/** A key of node-rsa: its public text has no final newline. */
function nodeRsaKey() {
  const pair = new NodeRSA({ b: 2048 })
  return {
    pem: pair.exportKey('pkcs8-public-pem'),
    sign: (text) => pair.sign(Buffer.from(text), 'base64'),
    verify: nodeRsaVerify,
  }
}

function nodeRsaVerify(pem, text, sign) {
  const key = new NodeRSA(pem.trim(), 'pkcs8-public-pem', SCHEME)
  return key.verify(Buffer.from(text), sign, 'utf8', 'base64')
}

/** A key of Node's own library, in the suite of its kind. */
function nodeKey(kind, options) {
  const { publicKey, privateKey } = generateKeyPairSync(kind, options)
  const algorithm = kind === 'ed25519' ? null : 'sha256'
  return {
    pem: publicKey.export({ type: 'spki', format: 'pem' }),
    sign: (text) => sign(algorithm, Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' })
      .toString('base64'),
    verify: anyVerify,
  }
}

function anyVerify(pem, text, signature) {
  const key = createPublicKey(pem)
  const algorithm = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'
  const options = { key, dsaEncoding: 'ieee-p1363' }
  return verify(algorithm, Buffer.from(text), options, Buffer.from(signature, 'base64'))
}

const address = (path = '/tracker') => node.api.replace('http', 'ws').replace('/api/v1/', path)

const connect = (key, path) => Peer.connect(WebSocket, address(path), key)

async function with_(keys, act, path) {
  const peers = []
  for (const key of keys) peers.push(await connect(key, path))
  try {
    await act(...peers)
  } finally {
    for (const peer of peers) peer.close()
  }
}

describe('the life of two peers', () => {
  for (const path of ['/', '/ws', '/tracker']) {
    test(`node-rsa pays node-rsa at ${path}`, async () => {
      await with_([nodeRsaKey(), nodeRsaKey()], (a, b) => story(a, b, anyVerify), path)
    })
  }

  test('RSA pays Ed25519', async () => {
    await with_([nodeRsaKey(), nodeKey('ed25519')], (a, b) => story(a, b, anyVerify))
  })

  test('Ed25519 pays RSA', async () => {
    await with_([nodeKey('ed25519'), nodeRsaKey()], (a, b) => story(a, b, anyVerify))
  })

  test('P-256 pays RSA with a final newline in its text', async () => {
    const payee = nodeKey('rsa', { modulusLength: 3072 })
    assert.ok(payee.pem.endsWith('\n'))
    const payer = nodeKey('ec', { namedCurve: 'P-256' })
    await with_([payer, payee], (a, b) => story(a, b, anyVerify))
  })
})

describe('envelopes', () => {
  test('a key with and without a final newline shakes hands', async () => {
    const key = nodeRsaKey()
    await with_([key, { ...key, pem: `${key.pem}\n` }], (a, b) => {
      assert.equal(a.tracker, b.tracker)
    })
  })

  test('replies carry the token byte for byte', async () => {
    const key = nodeRsaKey()
    const payload = { message: key.pem, pk: key.pem, sign: key.sign(key.pem) }
    const socket = new WebSocket(address())
    await new Promise((resolve) => { socket.onopen = resolve })
    for (const corrToken of ['', 'x'.repeat(1024), 'здраво · ✓ 🎈 "\\\n']) {
      const answered = new Promise((resolve) => { socket.onmessage = resolve })
      socket.send(JSON.stringify({ cmd: Command.handshake, corrToken, payload }))
      assert.equal(JSON.parse((await answered).data).corrToken, corrToken)
    }
    socket.close()
  })

  test('what is no frame is answered and the connection goes on', async () => {
    const socket = new WebSocket(address())
    await new Promise((resolve) => { socket.onopen = resolve })
    const ask = (text) => new Promise((resolve) => {
      socket.onmessage = ({ data }) => resolve(JSON.parse(data))
      socket.send(text)
    })
    const nonsense = await ask('{"cmd":')
    assert.equal(nonsense.corrToken, '')
    assert.equal(nonsense.data, '{"cmd":')
    assert.equal(nonsense.code, 'bad_json')
    const unknown = await ask('{"cmd":3,"corrToken":"t","payload":{}}')
    assert.equal(unknown.error, 'invalid message command: 3')
    assert.deepEqual([unknown.corrToken, unknown.data], ['t', 't'])
    socket.close()
  })

  test('a message that was written anew after signing is refused', async () => {
    await with_([nodeRsaKey()], async (peer) => {
      const address = 'a'
      const signed = JSON.stringify({ address, pk: peer.key.pem })
      const other = JSON.stringify({ pk: peer.key.pem, address })
      const payload = { message: other, pk: peer.key.pem, sign: peer.key.sign(signed) }
      const reply = await peer.send(Command.spendState, payload)
      assert.equal(reply.code, 'bad_signature')
      const bare = { message: `${peer.key.pem}\n`, pk: peer.key.pem, sign: '' }
      bare.sign = peer.key.sign(bare.message)
      assert.equal((await peer.send(Command.openSpend, bare)).code, 'bad_message')
    })
  })
})

// Wallet tracker, appendix A: V4 to V6. The node must take the very signatures of the document.
describe('the vectors of the document', () => {
  const V4 = {
    pem: '-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEArvFb89p8MRMMo4w19jlx\nWsO/n4iyxXyy0UVoXekeDnR8PfjHsH/0WwPY/0pXujj08KPDgA6Wi0U7VMoU9Uf4\naC3ecLrjqeUoo7EIrJ53pQuOXAmwzDw57iMmDLqKvSnqhxPcyRjLklNBxR5NbR96\n6Hd8+e+I/V2HMmCR96QlJAwNAX3wcUNFExCxREmEc7z6uXHdv2V7JhK7TnCDBXL9\n3Wh9VvVz/HoSgCcv7ee9T0+1O6w0a6x0am0SlrlFUILlud2IBykW30ihfnjZM6nn\neo/6/NKjcHoZ469/eo3YgxQehyOsOVP6uStOhWOcBktKHnEhDsc1ZOxXGjjizJqS\nXQIDAQAB\n-----END PUBLIC KEY-----',
    sign: 'idVVkzsST/y/gRrCjrDvIneNzdx4vsBbkal5bI83vOiOBGy1LWyD234A7YTghg8ahckDh8/+/aEK5DP9AYp/dGeBijC8AZqJrQ4llk9x3D+PzFYw2b9P7T6tJMsHw+/NUqaLbhxD4vEKhVbRZK3XzXPoLKjkBVUCSVTCp4wS1CGtwoa5WDWDf5aJ5/Q9XOgNrRh4+XD2/emCt7A8w7r7zn5i1sPYVvDzGZklqjmStfLSGAre2UgLODcTxOewLx2qvjeQUbvOEVxCt8TqUbp0uqrvjtdv2rP3FSjzYBiDhSRGQuMW/Bcv5E6fK7YzzB2XwskpLkUT2qSfoujHy4p8VQ==',
    wallet: '0x0b88a233ba5c99236bL-KWyo9FPwLrpdcbF4o2fV7nmMOZ8fw70I927w==',
  }
  const V5 = {
    pem: '-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2txhAuZjJt2fQjSoLun8MqfXliXi\nyDkNokRSs9BpVSVyIY2J4tEx4Eg6yV2RrJQeCK4NSO8rqUPybuPJ/oTkSQ==\n-----END PUBLIC KEY-----',
    md5: 'tPasX9RcvyMlpkpkuerx0RAla5ShjRirmD0b+60OSa8J5AFnUjk4cQ+z+Ltrp3PJETInPFKcu3UFZU9vTtk0pQ==',
    sign: 'aaPP4kTkilC54b68knsaP9NGOyG+gpUE2qO1rLNTdHlGBBLBFFbIddEyE/gR8/qkB3s6PFIuvHGbPFxaPJq9OA==',
  }
  const V6 = {
    pem: '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n-----END PUBLIC KEY-----',
    sign: 'v/4emHx0FuoXa6Y90fubWycIHac3EWgEm0bmQ3jHMztRDDFxZwPxap9NR6av7naKgEeXN/WiTeB6t8iP+Pj6Bw==',
    wallet: '0x0b1dac42cc91283064ePh0awiUFpni1WT_sRm38BktGW4rLqj72ezasw==',
  }

  for (const [name, vector] of Object.entries({ V4, V5, V6 })) {
    test(`the handshake of ${name} is answered`, async () => {
      await with_([nodeRsaKey()], async (peer) => {
        const payload = { message: vector.pem, pk: vector.pem, sign: vector.sign }
        const reply = await peer.request(Command.handshake, payload)
        assert.ok(anyVerify(reply.data.message, reply.data.message, reply.data.sign))
      })
    })
  }

  test('the signature over MD5 of V5 is refused unless it is allowed', async () => {
    await with_([nodeRsaKey()], async (peer) => {
      const payload = { message: V5.pem, pk: V5.pem, sign: V5.md5 }
      assert.equal((await peer.send(Command.handshake, payload)).code, 'bad_signature')
    })
  })

  test('the message of V4 verifies over the bytes of its text', async () => {
    const message = '{"address":"0x0ccad9ca76fca87212wlfoNI2jsRFbqvt8XKkLt2sAdoQmzMhd9wvGMw==","note":"здраво · ✓"}'
    const sign = 'rUnCbLd10BlB8Ozvk/jXm5MOF8dO/a/Q2KM65/Eg2Tn2Cs95yQuRdvws1vM21R++Utr+2l7szjnonBbBVmzMbKKOvxV660gapprITo7OstGtcRq7kFafSmFEyPq1/r92UMgHmiWyQCeaZqtptPXmXiJw02srbQ3K/zPvsCmkeavYkTG1yYGdrcYpIbuRlQLO+is5ukdTH7ERBVSmaxXOSUSJPIZan/9/9SsGixSWSKs497HQexmnViYKJr+0H92XqKmk8oUFHBdOcAXdTMNG3XnTBRfX3BtUUAxGoXpCK5TTs7A6VLKXh5XMRZmxFA33mwJW0yclF+Qj1X6IBOZoGg=='
    assert.ok(nodeRsaVerify(V4.pem, message, sign))
    await with_([nodeRsaKey()], async (peer) => {
      // It names no key, so it is no request; what counts is that its signature is not the reason.
      const reply = await peer.send(Command.spendState, { message, pk: V4.pem, sign })
      assert.equal(reply.code, 'bad_message')
    })
  })

  for (const [name, { wallet }] of Object.entries({ V4, V6 })) {
    test(`the wallet of ${name} earns`, async () => {
      await with_([nodeRsaKey(), nodeKey('ed25519')], (a, b) => walletStory(a, b, wallet))
    })
  }
})

// A key that was exported elsewhere signs the same here.
test('the seed of V6 makes the key and the signature of the document', () => {
  const seed = Buffer.from(Array.from({ length: 32 }, (_, i) => i))
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), seed])
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  const pem = createPublicKey(key).export({ type: 'spki', format: 'pem' }).trim()
  assert.equal(
    sign(null, Buffer.from(pem), key).toString('base64'),
    'v/4emHx0FuoXa6Y90fubWycIHac3EWgEm0bmQ3jHMztRDDFxZwPxap9NR6av7naKgEeXN/WiTeB6t8iP+Pj6Bw==',
  )
})
