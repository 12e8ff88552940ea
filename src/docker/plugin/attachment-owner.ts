/** Docker's names of containers have no space in them. */
const MARK = 'netns ';

/** Whose the addresses of an interface are that `tsflannelctl attach` has made. */
export function attachmentOwner(netns: string, ifname: string): string {
  return `${MARK}${netns} ${ifname}`;
}

/** Whether addresses were asked for by `tsflannelctl attach`. */
export function isAttachmentOwner(owner: string | undefined): boolean {
  return owner?.startsWith(MARK) === true;
}
