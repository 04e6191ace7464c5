// The JavaScript driver, unmodified, against a real node.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { after, before, describe, test } from 'node:test'

import { Node } from './daybook.js'

const require = createRequire(import.meta.url)
const { Connection, Ed25519Keypair, Transaction } = require('bigchaindb-driver')
const { Ed25519Sha256, ThresholdSha256 } = require('crypto-conditions')
const base58 = require('bs58')

const AMOUNT_MAX = '9000000000000000000'
const ANNOUNCED = 10

let node
let connection

before(async () => {
  node = await Node.start('javascript')
  connection = new Connection(node.api)
})

after(() => node?.stop())

/** About one key in a thousand has fewer than the 43 characters that the schema wants. */
function keypair() {
  for (;;) {
    const pair = new Ed25519Keypair()
    if (pair.publicKey.length >= 43) return pair
  }
}

function ownedBy({ publicKey }, amount = '1') {
  return Transaction.makeOutput(Transaction.makeEd25519Condition(publicKey), amount)
}

function signedCreate(issuer, asset, metadata = null, outputs = [ownedBy(issuer)]) {
  const draft = Transaction.makeCreateTransaction(asset, metadata, outputs, issuer.publicKey)
  return Transaction.signTransaction(draft, issuer.privateKey)
}

function signedTransfer(spent, outputs, ...signers) {
  const unspent = spent.map(([tx, index]) => ({ tx, output_index: index }))
  const draft = Transaction.makeTransferTransaction(unspent, outputs, null)
  return Transaction.signTransaction(draft, ...signers.map((pair) => pair.privateKey))
}

async function create(...args) {
  return connection.postTransactionCommit(signedCreate(...args))
}

async function unspent({ publicKey }, spent = false) {
  const outputs = await connection.listOutputs(publicKey, spent)
  return outputs.map((each) => [each.transaction_id, each.output_index])
}

/** The driver tells only the status line; the node's reason is read by asking once more. */
async function refused(transaction, reason) {
  const badRequest = (error) => error.status === '400 BAD REQUEST'
  await assert.rejects(connection.postTransactionCommit(transaction), badRequest)
  const address = `${node.api}transactions?mode=commit`
  const answer = await fetch(address, { method: 'POST', body: JSON.stringify(transaction) })
  assert.equal(answer.status, 400)
  assert.match((await answer.json()).message, reason)
}

/** The messages that the signatures of an input cover (asset ledger 4.4). */
function message(text, input) {
  const { transaction_id: id, output_index: index } = input.fulfills
  return createHash('sha3-256').update(`${text}${id}${index}`).digest()
}

function openedBy(signers, others) {
  return (text, input) => {
    const fulfillment = new ThresholdSha256()
    fulfillment.setThreshold(signers.length)
    for (const signer of signers) {
      const part = new Ed25519Sha256()
      part.sign(message(text, input), base58.decode(signer.privateKey))
      fulfillment.addSubfulfillment(part)
    }
    for (const other of others) {
      const part = new Ed25519Sha256()
      part.setPublicKey(Buffer.from(base58.decode(other.publicKey)))
      fulfillment.addSubcondition(part.getCondition())
    }
    return fulfillment.serializeUri()
  }
}

function lockedBy(threshold, owners) {
  const parts = owners.map(({ publicKey }) => Transaction.makeEd25519Condition(publicKey, false))
  return Transaction.makeOutput(Transaction.makeThresholdCondition(threshold, parts))
}

describe('create and transfer', () => {
  for (const [what, asset] of [
    ['an object', { kind: 'lamp', nested: { list: [1, null, 'x'] } }],
    ['a string', 'QmU3QiPXtMrXGhpPV6TDDDQitXo4XcHNoJ27hrByeFxmiy'],
    ['null', null],
  ]) {
    test(`an asset that is ${what} is answered and read back as it was sent`, async () => {
      const sent = signedCreate(keypair(), asset, { remark: what })
      assert.deepEqual(await connection.postTransactionCommit(sent), sent)
      assert.deepEqual(await connection.getTransaction(sent.id), sent)
    })
  }

  for (const mode of ['Async', 'Sync', 'Commit', '']) {
    test(`postTransaction${mode} takes a transaction and it commits`, async () => {
      const stream = await node.follow()
      const sent = signedCreate(keypair(), { mode })
      assert.deepEqual(await connection[`postTransaction${mode}`](sent), sent)
      await stream.wait((frames) => frames.some((frame) => frame.transaction_id === sent.id))
      assert.deepEqual(await connection.getTransaction(sent.id), sent)
      await stream.close()
    })
  }

  test('a transfer hands the asset to the next owner, and the history is in order', async () => {
    const [alice, bob, carol] = [keypair(), keypair(), keypair()]
    const created = await create(alice, { coin: 1 })
    const second = await connection.postTransaction(
      signedTransfer([[created, 0]], [ownedBy(bob)], alice))
    const third = await connection.postTransaction(
      signedTransfer([[second, 0]], [ownedBy(carol)], bob))
    assert.deepEqual(await unspent(alice), [])
    assert.deepEqual(await unspent(alice, true), [[created.id, 0]])
    assert.deepEqual(await unspent(carol), [[third.id, 0]])
    assert.deepEqual(await connection.listTransactions(created.id), [created, second, third])
    assert.deepEqual(await connection.listTransactions(created.id, 'CREATE'), [created])
    assert.deepEqual(await connection.listTransactions(created.id, 'TRANSFER'), [second, third])
  })
})

describe('amounts', () => {
  test('an amount is split and merged again', async () => {
    const [alice, bob] = [keypair(), keypair()]
    const created = await create(alice, { hours: 10 }, null, [ownedBy(alice, '10')])
    const split = await connection.postTransaction(
      signedTransfer([[created, 0]], [ownedBy(bob, '3'), ownedBy(alice, '7')], alice))
    assert.deepEqual(await unspent(bob), [[split.id, 0]])
    assert.deepEqual(await unspent(alice), [[split.id, 1]])
    const merged = await connection.postTransaction(
      signedTransfer([[split, 0], [split, 1]], [ownedBy(bob, '10')], bob, alice))
    assert.deepEqual(await unspent(bob), [[merged.id, 0]])
    assert.deepEqual(await unspent(alice), [])
  })

  test('outputs of several transactions move together, and spent ones are told apart', async () => {
    const [alice, bob, carol] = [keypair(), keypair(), keypair()]
    const created = await create(alice, { hours: 2 }, null, [ownedBy(alice, '1'), ownedBy(bob, '1')])
    const one = await connection.postTransactionCommit(signedTransfer([[created, 0]], [ownedBy(alice, '1')], alice))
    const other = await connection.postTransactionCommit(signedTransfer([[created, 1]], [ownedBy(bob, '1')], bob))
    const both = await connection.postTransactionCommit(
      signedTransfer([[one, 0], [other, 0]], [ownedBy(carol, '2')], alice, bob))
    assert.deepEqual(await unspent(carol), [[both.id, 0]])
    assert.deepEqual(await unspent(alice), [])
    assert.deepEqual(await unspent(alice, true), [[created.id, 0], [one.id, 0]])
    assert.equal((await connection.listOutputs(bob.publicKey)).length, 2)
  })

  test('two outputs of the largest amount move together', async () => {
    const [alice, bob] = [keypair(), keypair()]
    const largest = (owner) => [ownedBy(owner, AMOUNT_MAX), ownedBy(owner, AMOUNT_MAX)]
    const created = await create(alice, null, null, largest(alice))
    const moved = signedTransfer([[created, 0], [created, 1]], largest(bob), alice, alice)
    assert.deepEqual(await connection.postTransaction(moved), moved)
  })

  test('more than was there is refused', async () => {
    const [alice, bob] = [keypair(), keypair()]
    const created = await create(alice, { hours: 10 }, null, [ownedBy(alice, '10')])
    const sent = signedTransfer([[created, 0]], [ownedBy(bob, '11')], alice)
    await refused(sent, /AmountError.*`10`.*`11`/)
    assert.deepEqual(await unspent(alice), [[created.id, 0]])
  })
})

describe('several owners', () => {
  test('two owners spend together, one alone does not', async () => {
    const [alice, bob] = [keypair(), keypair()]
    const created = await create(alice, { flat: 'shared' }, null, [lockedBy(2, [alice, bob])])
    assert.deepEqual(await unspent(alice), [[created.id, 0]])
    assert.deepEqual(await unspent(bob), [[created.id, 0]])
    const draft = Transaction.makeTransferTransaction(
      [{ tx: created, output_index: 0 }], [ownedBy(bob)], null)
    const alone = Transaction.delegateSignTransaction(draft, openedBy([alice], [bob]))
    await refused(alone, /InvalidSignature/)
    const both = Transaction.delegateSignTransaction(draft, openedBy([alice, bob], []))
    assert.deepEqual(await connection.postTransaction(both), both)
    assert.deepEqual(await unspent(alice), [])
  })

  for (const absent of [0, 1, 2]) {
    test(`two of three owners spend without number ${absent + 1}`, async () => {
      const owners = [keypair(), keypair(), keypair()]
      const created = await create(owners[0], { vault: absent }, null, [lockedBy(2, owners)])
      const draft = Transaction.makeTransferTransaction(
        [{ tx: created, output_index: 0 }], [ownedBy(owners[0])], null)
      const present = owners.filter((_, index) => index !== absent)
      const one = openedBy(present.slice(0, 1), [present[1], owners[absent]])
      await refused(Transaction.delegateSignTransaction(draft, one), /InvalidSignature/)
      const signed = Transaction.delegateSignTransaction(draft, openedBy(present, [owners[absent]]))
      assert.deepEqual(await connection.postTransaction(signed), signed)
    })
  }
})

describe('refusals', () => {
  test('the same creation twice is a duplicate', async () => {
    const created = await create(keypair(), { once: true })
    await refused(created, /DuplicateTransaction/)
  })

  test('a spent output is not spent again', async () => {
    const [alice, bob, carol] = [keypair(), keypair(), keypair()]
    const created = await create(alice, { single: 'coin' })
    await connection.postTransaction(signedTransfer([[created, 0]], [ownedBy(bob)], alice))
    const again = signedTransfer([[created, 0]], [ownedBy(carol)], alice)
    await refused(again, /DoubleSpend/)
    assert.deepEqual(await unspent(carol), [])
  })

  test("a stranger's signature is refused", async () => {
    const [alice, mallory] = [keypair(), keypair()]
    const created = await create(alice, { not: 'yours' })
    const stolen = signedTransfer([[created, 0]], [ownedBy(mallory)], mallory)
    await refused(stolen, /InvalidSignature/)
    assert.deepEqual(await unspent(alice), [[created.id, 0]])
  })

  test('what is not there answers 404 NOT FOUND', async () => {
    const missing = (error) => error.status === '404 NOT FOUND'
    await assert.rejects(connection.getTransaction('0'.repeat(64)), missing)
    await assert.rejects(connection.getBlock(1_000_000), missing)
    assert.deepEqual(await connection.listBlocks('0'.repeat(64)), [])
    assert.deepEqual(await connection.listTransactions('0'.repeat(64)), [])
  })
})

describe('queries', () => {
  test('a block is found by transaction and by height', async () => {
    const created = await create(keypair(), { in: 'a block' })
    const [height] = await connection.listBlocks(created.id)
    const block = await connection.getBlock(height)
    assert.equal(block.height, height)
    assert.deepEqual(block.transactions.filter(({ id }) => id === created.id), [created])
  })

  test('assets and metadata are found by their words', async () => {
    const created = []
    for (const n of [1, 2, 3]) {
      created.push(await create(keypair(), { msg: `Hello Zeppelin ${n}!` }, { remark: 'call me maybe' }))
    }
    const byId = (a, b) => (a.id < b.id ? -1 : 1)
    assert.deepEqual(
      (await connection.searchAssets('zeppelin')).sort(byId),
      created.map(({ id, asset }) => ({ id, data: asset.data })).sort(byId),
    )
    assert.deepEqual(
      (await connection.searchMetadata('maybe')).sort(byId),
      created.map(({ id, metadata }) => ({ id, metadata })).sort(byId),
    )
    assert.equal((await connection.searchAssets('zeppelin', 2)).length, 2)
    assert.deepEqual(await connection.searchAssets('zzznothing'), [])
  })
})

test('everything that commits is announced once and in block order', async () => {
  const stream = await node.follow()
  const alice = keypair()
  const sent = Array.from({ length: ANNOUNCED }, (_, n) => signedCreate(alice, { announced: n }))
  await Promise.all(sent.map((each) => connection.postTransactionAsync(each)))
  const frames = await stream.wait(({ length }) => length >= ANNOUNCED)
  const announced = frames.map((frame) => frame.transaction_id)
  assert.deepEqual([...announced].sort(), sent.map(({ id }) => id).sort())
  const inBlocks = []
  for (const height of new Set(frames.map((frame) => frame.height))) {
    const block = await connection.getBlock(height)
    inBlocks.push(...block.transactions.map(({ id }) => id))
  }
  assert.deepEqual(announced, inBlocks)
  await stream.close()
})
