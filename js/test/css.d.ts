// Vite loads style sheets; TypeScript only has to let it.
declare module "*.css";
