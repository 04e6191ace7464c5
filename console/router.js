// Where the reader is: the part of the address behind the hash, so that ids of what one looks at reach
// no server's log.

import { useEffect, useState } from './vendor/hooks.js'

/** The present place: `#/blocks/7?from=25` is `{ path: ['blocks', '7'], params: { from: '25' } }`, and the hash itself. */
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?')
  const segments = path.split('/').filter(Boolean).map(decoded)
  return { path: segments, params: Object.fromEntries(new URLSearchParams(query ?? '')), hash: location.hash }
}

function decoded(segment) {
  try {
    return decodeURIComponent(segment)
  } catch {
    // A broken escape stands for itself.
    return segment
  }
}

/** The address of a place. */
export function to(path, params = {}) {
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== '')
  const query = new URLSearchParams(given).toString()
  return '#/' + path.map(encodeURIComponent).join('/') + (query ? '?' + query : '')
}

/** Goes to a place. */
export function go(path, params) {
  location.hash = to(path, params)
}

/** The present place, kept current. */
export function usePlace() {
  const [present, setPresent] = useState(place)
  useEffect(() => {
    const moved = () => setPresent(place())
    addEventListener('hashchange', moved)
    return () => removeEventListener('hashchange', moved)
  }, [])
  return present
}
