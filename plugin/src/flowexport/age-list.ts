/** A member of an AgeList; it belongs to one list at most. */
export interface Aged<T> {
  older: T | undefined;
  newer: T | undefined;
}

/**
 * Members by the time of their last use. A Map's own order would do, but every use would delete and insert: garbage for each,
 * and an iterator that keeps the place of the oldest keeps all former tables of the Map as well.
 */
export class AgeList<T extends Aged<T>> {
  #oldest: T | undefined;
  #newest: T | undefined;

  get oldest(): T | undefined {
    return this.#oldest;
  }

  /** A new member, or one that was used. */
  use(member: T): void {
    if (this.#newest === member) return;
    this.remove(member);
    member.older = this.#newest;
    if (this.#newest === undefined) this.#oldest = member;
    else this.#newest.newer = member;
    this.#newest = member;
  }

  /** No harm where it is not in the list. */
  remove(member: T): void {
    const { older, newer } = member;
    if (older !== undefined) older.newer = newer;
    else if (this.#oldest === member) this.#oldest = newer;
    if (newer !== undefined) newer.older = older;
    else if (this.#newest === member) this.#newest = older;
    member.older = undefined;
    member.newer = undefined;
  }
}
