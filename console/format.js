// How values are shown: ids short, amounts grouped, times local, and texts of strangers harmless.

/** Characters of a stranger's text that are shown before one asks for more. */
export const TEXT_CHARS_MAX = 20_000

const SPACE = '\u202f'

/** An id with its middle left out: enough to tell it from others at a glance. */
export function short(id, head = 8, tail = 6) {
  return id.length <= head + tail + 1 ? id : id.slice(0, head) + '…' + id.slice(-tail)
}

/** A whole number with its digits in groups. Takes texts too: amounts may be above 2⁵³. */
export function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+(?!\d))/g, SPACE)
}

/** A number of bytes in the largest fitting unit. */
export function bytes(count) {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = Number(count)
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  const digits = unit === 0 || value >= 100 || Number.isInteger(value) ? 0 : 1
  return `${unit === 0 ? grouped(value) : value.toFixed(digits)} ${units[unit]}`
}

/** A rate or a mean with as many digits as tell something. */
export function measure(value) {
  if (value >= 100 || Number.isInteger(value)) return grouped(Math.round(value))
  return value.toFixed(value >= 10 ? 1 : value >= 0.1 ? 2 : 3)
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' })
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' })

/** A time in milliseconds since 1970: short and local, and as ISO 8601. */
export function time(milliseconds) {
  const date = new Date(Number(milliseconds))
  if (Number.isNaN(date.getTime())) return { text: String(milliseconds), iso: '' }
  const today = new Date().toDateString() === date.toDateString()
  return { text: today ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`, iso: date.toISOString() }
}

/** A span of milliseconds in words. */
export function span(milliseconds) {
  const parts = [['day', 86_400_000], ['hour', 3_600_000], ['minute', 60_000], ['second', 1_000]]
  for (const [name, length] of parts) {
    if (milliseconds >= length) {
      const count = Math.floor(milliseconds / length)
      return `${grouped(count)} ${name}${count === 1 ? '' : 's'}`
    }
  }
  return `${milliseconds} ms`
}

// Controls, marks that turn the reading direction, invisible characters, line separators, half pairs.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g

/** A stranger's text with everything spelled out that could hide, reorder or imitate. */
export function visible(text) {
  return text.replace(HIDDEN, (hidden) => '\\u' + hidden.charCodeAt(0).toString(16).padStart(4, '0'))
}

/**
 * JSON text with line breaks and indents. It works on the text, so that numbers above 2⁵³ stay what they
 * are; what is no JSON comes out as it went in, with other blanks at the worst.
 */
export function indented(json) {
  let out = ''
  let depth = 0
  for (let at = 0; at < json.length; at += 1) {
    const mark = json[at]
    if (mark === '"') {
      let end = at + 1
      while (end < json.length && json[end] !== '"') end += json[end] === '\\' ? 2 : 1
      out += json.slice(at, end + 1)
      at = end
    } else if (mark === '{' || mark === '[') {
      const empty = /^\s*[}\]]/.exec(json.slice(at + 1, at + 64))
      if (empty) {
        out += mark + empty[0].trim()
        at += empty[0].length
      } else {
        depth += 1
        out += mark + line(depth)
      }
    } else if (mark === '}' || mark === ']') {
      depth -= 1
      out += line(depth) + mark
    } else if (mark === ',') {
      out += ',' + line(depth)
    } else if (mark === ':') {
      out += ': '
    } else if (!/\s/.test(mark)) {
      out += mark
    }
  }
  return out
}

// Deeply nested text is not pushed out of sight.
function line(depth) {
  return '\n' + '  '.repeat(Math.max(0, Math.min(depth, 20)))
}
