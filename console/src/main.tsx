// The console: everything that the platform can do, through the public API alone.
import { render } from 'preact';
import { App } from './app';

const place = document.getElementById('app');
if (place) render(<App />, place);
