/** `IFNAMSIZ` less the closing zero. */
export const MAX_DEVICE_NAME = 15;

const DEVICE_NAME = new RegExp(String.raw`^(?!\.{1,2}$)[^\s/:]{1,${MAX_DEVICE_NAME}}$`);

/** Whether the kernel takes that as the name of a device (`dev_valid_name()`). */
export function isDeviceName(text: string): boolean {
  return DEVICE_NAME.test(text);
}
