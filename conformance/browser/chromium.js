// Debian's Chromium, headless, driven over its DevTools protocol.

import { existsSync } from 'node:fs'
import puppeteer from 'puppeteer-core'

/** Where Debian and others put it; CONFORMANCE_CHROMIUM names another one. */
const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/snap/bin/chromium']

/** A page answers within seconds even on a busy machine; the bound only turns a hang into a failure. */
export const PATIENCE_MS = 30_000

/** Starts the browser; `flags` are further arguments. */
export async function launch(flags = []) {
  const executablePath = [process.env.CONFORMANCE_CHROMIUM, ...PLACES].find((place) => place && existsSync(place))
  if (!executablePath) throw new Error('no Chromium: apt-get install chromium, or set CONFORMANCE_CHROMIUM')
  return puppeteer.launch({
    executablePath,
    headless: true,
    protocolTimeout: PATIENCE_MS,
    // Root, as in a container, gets no sandbox; the pages are our own.
    args: [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), '--disable-dev-shm-usage', '--disable-gpu', '--hide-scrollbars', '--lang=en-GB', ...flags],
  })
}
