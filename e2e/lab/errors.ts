/** A failure of the laboratory itself: says what was tried, where, and what came back. */
export class LabError extends Error {
  override readonly name = 'LabError';
}
