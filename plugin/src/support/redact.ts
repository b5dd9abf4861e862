/** The second net: what is collected holds no secrets, and whatever looks like one all the same is taken out. */

export const REDACTED = '[left out]';

const RULES: readonly (readonly [pattern: RegExp, replacement: string])[] = [
  // Private keys in PEM, also cut off, and in the one line of a JSON or YAML string.
  [/-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g, REDACTED],
  // JSON Web Tokens, as of service accounts: header and claims begin with {" in base64.
  [/\beyJ[\w-]{6,}\.eyJ[\w-]{6,}(?:\.[\w-]*)?/g, REDACTED],
  [/\b(Bearer|Basic)\s+[\w.~+/-]{6,}=*/gi, `$1 ${REDACTED}`],
  // Passwords in addresses.
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s/@]+@/gi, `$1:${REDACTED}@`],
  // Settings that are called so.
  [
    /((?:pass(?:word|wd|phrase)?|secret|token|psk|api[-_]?key|private[-_]?key|(?:client-)?key-data)["']?\s*[:=]\s*["']?)[^\s"',}\]]+/gi,
    `$1${REDACTED}`,
  ],
];

/** The text without what looks like a secret. */
export function redact(text: string): string {
  return RULES.reduce((rest, [pattern, replacement]) => rest.replace(pattern, replacement), text);
}
