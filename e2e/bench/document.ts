/** Places in a document that a program fills: between `<!-- table: NAME -->` and `<!-- end of NAME -->`. */

/** The document with this text in the place of that name. @throws Error it has no such place */
export function filled(document: string, name: string, text: string): string {
  const [begin, end] = [`<!-- table: ${name} -->`, `<!-- end of ${name} -->`];
  const [from, to] = [document.indexOf(begin), document.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`the document has no place ${begin} ... ${end}`);
  return `${document.slice(0, from)}${begin}\n\n${text}\n\n${document.slice(to)}`;
}
