export function compilePageScript(): string;
